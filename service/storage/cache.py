"""Local copies of files that are kept elsewhere: checked at each use, least used ones go first.

An entry is a folder, which appears by rename, so that threads and processes may share the cache.
"""

import hashlib
import os
import shutil
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Final, TypeAlias

from model.spec import sha256_of

from ..errors import DamagedArtifactError
from ..observability import get_logger
from .manifest import Manifest, StoredFile, damaged
from .parallel import in_parallel

IN_USE_S: Final = 300.0  # a reader opens its files within this time
KEEP_S: Final = 3600.0  # what a purge elsewhere leaves here goes after this time
STRIPES: Final = 64
TRIES: Final = 4
TRY_AGAIN_S: Final = 0.1

Read: TypeAlias = Callable[[StoredFile], Iterable[bytes]]
log = get_logger(__name__)


class LocalCache:
    """Entries by name. ``max_bytes`` may be exceeded by what was used in the last minutes."""

    def __init__(self, root: Path, max_bytes: int) -> None:
        self._entries, self._partial = root / "entries", root / "partial"
        self._max_bytes = max_bytes
        self._locks = tuple(threading.Lock() for _ in range(STRIPES))
        for folder in (self._entries, self._partial):
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)

    def fetch(self, name: str, manifest: Manifest, read: Read) -> tuple[Path, ...]:
        """The files of an entry, from here if they are whole, else from ``read``.

        Raises ``DamagedArtifactError`` when what was read has another size or hash.
        """
        entry = self._entries / name
        with self._locks[hash(name) % STRIPES]:
            if not self._whole(entry, manifest):
                self._fill(entry, manifest, read)
            os.utime(entry)
        return tuple(entry / file.name for file in manifest.files)

    def drop(self, name: str) -> None:
        """Forget an entry."""
        self._discard(self._entries / name)

    def drop_all(self, prefix: str) -> None:
        """Forget every entry whose name begins so."""
        for entry in self._entries.glob(f"{prefix}*"):
            self._discard(entry)

    def shrink(self, incoming_bytes: int = 0, *, max_bytes: int | None = None) -> None:
        """Remove the least recently used entries until ``incoming_bytes`` fit below the limit."""
        limit = self._max_bytes if max_bytes is None else max_bytes
        entries = sorted((_used_at(entry), entry) for entry in self._entries.iterdir())
        sizes = {entry: _size(entry) for _, entry in entries}
        total = sum(sizes.values()) + incoming_bytes
        for used_at, entry in entries:
            if total <= limit or time.time() - used_at < IN_USE_S:
                return
            self._discard(entry)
            total -= sizes[entry]

    def size(self) -> int:
        """Bytes of all entries."""
        return sum(_size(entry) for entry in self._entries.iterdir())

    def tidy(self) -> None:
        """Remove entries that nobody used for an hour, and what killed processes left."""
        for folder in (*self._entries.iterdir(), *self._partial.iterdir()):
            if time.time() - _used_at(folder) > KEEP_S:
                self._discard(folder)
        self.shrink()

    def _whole(self, entry: Path, manifest: Manifest) -> bool:
        if not entry.is_dir():
            return False
        if all(in_parallel(lambda file: _intact(entry, file), manifest.files)):
            return True
        log.warning("cache_damaged")
        self._discard(entry)
        return False

    def _fill(self, entry: Path, manifest: Manifest, read: Read) -> None:
        self.shrink(manifest.size)
        folder = self._partial / uuid.uuid4().hex
        folder.mkdir(mode=0o700)
        try:
            in_parallel(lambda file: _copy(folder / file.name, file, read), manifest.files)
            self._publish(folder, entry, manifest)
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _publish(self, folder: Path, entry: Path, manifest: Manifest) -> None:
        """Another process may have been faster; its copy serves if it is whole."""
        if not self._whole(entry, manifest):
            folder.rename(entry)

    def _discard(self, folder: Path) -> None:
        """Out of sight at once, then gone."""
        away = self._partial / uuid.uuid4().hex
        try:
            folder.rename(away)
        except FileNotFoundError:  # another process did it
            return
        shutil.rmtree(away, ignore_errors=True)


def _intact(entry: Path, file: StoredFile) -> bool:
    path = entry / file.name
    try:
        return path.stat().st_size == file.size and sha256_of(path) == file.sha256
    except FileNotFoundError:
        return False


def _copy(path: Path, file: StoredFile, read: Read) -> None:
    """Some S3 servers replace an object by the same bytes with a moment in which it is not there
    or not whole: a file that looks damaged is read again before that is believed."""
    for _ in range(TRIES - 1):
        try:
            return _write(path, file, read(file))
        except DamagedArtifactError:
            time.sleep(TRY_AGAIN_S)
    return _write(path, file, read(file))


def _write(path: Path, file: StoredFile, parts: Iterable[bytes]) -> None:
    digest, size = hashlib.sha256(), 0
    with path.open("wb") as stream:
        for part in parts:
            stream.write(part)
            digest.update(part)
            size += len(part)
    if size != file.size or digest.hexdigest() != file.sha256:
        raise damaged()


def _used_at(folder: Path) -> float:
    try:
        return folder.stat().st_mtime
    except FileNotFoundError:
        return time.time()


def _size(folder: Path) -> int:
    return sum(_sizes(folder))


def _sizes(folder: Path) -> Iterator[int]:
    try:
        with os.scandir(folder) as found:
            yield from (file.stat().st_size for file in found)
    except FileNotFoundError:
        return
