"""Where instances wait: ``arrivals/<arrival id>/<SHA-256 of the SOP instance UID>.dcm``.

A file is written in ``incoming`` and then linked to its place, so that what lies there is whole,
and stays in ``incoming`` until its arrival is known to have taken it.
"""

import errno
import hashlib
import os
import re
import shutil
import time
import uuid
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from ..storage.store import full_disk_told, sync

INCOMING = "incoming"
SYNC = "arrival-sync"  # what its threads are called
ARRIVAL = re.compile(r"[0-9a-f-]{32,36}")
NO_LINKS = (errno.EXDEV, errno.EPERM, errno.EMLINK, errno.ENOTSUP)


class ArrivalFiles:
    """``root``: a folder on one disk; see ``Settings.arrivals_dir``."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._beside = ThreadPoolExecutor(1, SYNC)  # starts its thread with the first file

    def close(self) -> None:
        """End the thread that ``place`` has started: nothing is placed any more."""
        self._beside.shutdown(wait=False)

    @contextmanager
    def incoming(self) -> Iterator[Path]:
        """A private folder for instances that are being received, removed afterwards. Raises
        ``StorageFullError``."""
        folder = self.root / INCOMING / uuid.uuid4().hex
        with full_disk_told():
            folder.mkdir(parents=True, mode=0o700)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def place(self, file: Path, arrival_id: str, sop_instance_uid: str) -> bool:
        """Link a received file to its place and sync both; whether it is new there. What a broken
        disk left of the same instance is replaced."""
        folder = self._made(arrival_id)
        target = folder / f"{hashlib.sha256(sop_instance_uid.encode()).hexdigest()}.dcm"
        new = _linked(file, target)
        self._sync_both(target, folder)
        return new

    def of(self, arrival_id: str) -> tuple[Path, ...]:
        """The instances of an arrival that lie here."""
        return tuple(sorted(self.root.joinpath(arrival_id).glob("*.dcm")))

    def drop(self, arrival_id: str) -> None:
        shutil.rmtree(self.root / arrival_id, ignore_errors=True)

    def free_bytes(self) -> int:
        """Of the disk; the folder, or one above it, exists."""
        there = next(folder for folder in (self.root, *self.root.parents) if folder.is_dir())
        return shutil.disk_usage(there).free

    def arrival_ids(self) -> tuple[str, ...]:
        """Arrivals that have a folder here."""
        if not self.root.is_dir():
            return ()
        return tuple(sorted(found.name for found in self.root.iterdir() if _is_arrival(found)))

    def drop_incoming(self, *, older_than_s: float) -> None:
        """Remove what killed processes left half received."""
        folder = self.root / INCOMING
        for left in folder.iterdir() if folder.is_dir() else ():
            if _age_s(left) > older_than_s:
                shutil.rmtree(left, ignore_errors=True)

    def _sync_both(self, file: Path, folder: Path) -> None:
        """At the same time: the sender of an instance waits for both."""
        other = self._beside.submit(sync, folder)
        sync(file)
        other.result()

    def _made(self, arrival_id: str) -> Path:
        folder = self.root / arrival_id
        if not folder.is_dir():
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            sync(self.root)
        return folder


def link_all(files: Iterable[Path], folder: Path) -> None:
    """The same files in another folder, under their names; copies where it is on another disk."""
    for file in files:
        link(file, folder / file.name)


def link(file: Path, target: Path) -> None:
    try:
        os.link(file, target)
    except OSError as error:
        if error.errno not in NO_LINKS:
            raise
        shutil.copyfile(file, target)


def _linked(file: Path, target: Path) -> bool:
    try:
        os.link(file, target)
    except FileExistsError:
        if target.stat().st_size != file.stat().st_size:
            second = target.with_name(f"{file.name}.new")
            os.link(file, second)
            second.replace(target)
        return False
    return True


def _is_arrival(folder: Path) -> bool:
    return ARRIVAL.fullmatch(folder.name) is not None


def _age_s(path: Path) -> float:
    try:
        return time.time() - path.stat().st_mtime
    except FileNotFoundError:
        return 0.0
