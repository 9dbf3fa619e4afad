"""Uploads: streamed to disk under limits, told apart by content, unpacked safely.

Files are named by number here; a client's file name is never used and never repeated.
"""

import gzip
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from .archives import ArchiveLimits, Room, extract
from .domain import InputKind
from .errors import ArchiveError, EmptyUploadError, UnsupportedMediaError, UploadTooLargeError
from .media import Media, is_junk_name, media_of
from .settings import Settings
from .storage.artifacts import ArtifactStore, full_disk_told

ACCEPTED = "send DICOM files, one .zip of them, or one .nii or .nii.gz file"
ROOM_CHECK_BYTES = 64 * 1024**2


@dataclass(frozen=True)
class Upload:
    """Files (or folders, from the command line) to look at. ``ignored``: parts that were dropped
    already, such as the files an operating system leaves."""

    paths: tuple[Path, ...]
    ignored: int = 0


@dataclass(frozen=True)
class Opened:
    """Image files of one kind; ``notes`` say what was left out."""

    kind: InputKind
    files: tuple[Path, ...]
    notes: tuple[str, ...] = ()


class Receiver:
    """Streams the parts of one request into ``folder``.

    ``part`` raises ``UploadTooLargeError`` and ``StorageFullError`` from its ``write``.
    """

    def __init__(self, folder: Path, settings: Settings, store: ArtifactStore) -> None:
        self._folder = folder
        self._settings = settings
        self._store = store
        self._paths: list[Path] = []
        self._ignored = 0
        self._bytes = 0
        self._checked_at = 0
        store.require_room(settings.min_free_bytes)

    @contextmanager
    def part(self, filename: str | None = None) -> Iterator[Callable[[bytes], None]]:
        """Give a ``write(chunk)`` for one file; call it as the bytes arrive. ``filename`` serves
        only to drop what an operating system leaves in folders."""
        if len(self._paths) >= self._settings.max_files:
            raise too_many_files(self._settings.max_files)
        path = self._folder / f"part-{len(self._paths) + self._ignored + 1:06d}"
        with full_disk_told(), path.open("wb") as stream:

            def write(chunk: bytes) -> None:
                self._count(len(chunk))
                with full_disk_told():  # the caller's frame is not inside the block above
                    stream.write(chunk)

            yield write
        if filename is not None and is_junk_name(filename):
            self._ignored += 1
            path.unlink()
        else:
            self._paths.append(path)

    def upload(self) -> Upload:
        """What has arrived."""
        return Upload(tuple(self._paths), self._ignored)

    def _count(self, size: int) -> None:
        self._bytes += size
        limit = self._settings.max_upload_bytes
        if self._bytes > limit:
            raise UploadTooLargeError(f"the upload is larger than {limit // 1024**2} MiB")
        if self._bytes - self._checked_at > ROOM_CHECK_BYTES:
            self._checked_at = self._bytes
            self._store.require_room(self._settings.min_free_bytes)


def open_upload(
    upload: Upload, workspace: Path, settings: Settings, room: Room = lambda _: None
) -> Opened:
    """Find the image files of an upload, unpacking a zip into ``workspace``. ``room`` is asked
    first, with the unpacked bytes, and may raise.

    Raises ``EmptyUploadError``, ``UnsupportedMediaError``, ``ArchiveError`` (``unsafe_archive``,
    ``nested_archive``, ``encrypted_archive``, ``corrupt_archive``), ``UploadTooLargeError``.
    """
    files, ignored = _listed(upload, settings.max_files)
    found, empty = _sorted_by_media(files)
    ignored += len(found.pop(Media.JUNK, []))
    if Media.ZIP not in found:
        return _opened(found, ignored, empty)
    if sum(map(len, found.values())) > 1:
        raise UnsupportedMediaError(f"a zip came together with other files; {ACCEPTED}")
    return _unpacked(found[Media.ZIP][0], workspace, settings, ignored, room)


def too_many_files(limit: int) -> UploadTooLargeError:
    return UploadTooLargeError(f"more than {limit} files came", code="too_many_files")


def _unpacked(
    archive: Path, workspace: Path, settings: Settings, ignored: int, room: Room
) -> Opened:
    limits = ArchiveLimits(settings.max_extracted_bytes, settings.max_files, settings.max_ratio)
    extracted, junk = extract(archive, workspace, limits, room)
    found, empty = _sorted_by_media(extracted)
    junk += len(found.pop(Media.JUNK, []))
    if Media.ZIP in found or Media.OTHER_ARCHIVE in found or _is_not_one_nifti(found):
        raise ArchiveError(
            "the zip holds another archive; unpack it and send one zip of images",
            code="nested_archive",
        )
    return _opened(found, ignored + junk, empty)


def _is_not_one_nifti(found: dict[Media, list[Path]]) -> bool:
    packed = found.get(Media.GZIP, [])
    return any(not _holds_nifti(path) for path in packed)


def _opened(found: dict[Media, list[Path]], ignored: int, empty: int) -> Opened:
    notes = _notes(ignored, empty)
    if not found:
        raise EmptyUploadError(f"the upload holds no image; {ACCEPTED}")
    niftis = found.get(Media.NIFTI, []) + [
        path for path in found.get(Media.GZIP, []) if _holds_nifti(path)
    ]
    if niftis:
        return _one_nifti(niftis, found, notes)
    if not found.get(Media.DICOM):
        raise UnsupportedMediaError(f"the upload is of no kind that can be read; {ACCEPTED}")
    rest = sum(map(len, found.values())) - len(found[Media.DICOM])
    notes += (f"{rest} files that are no images ignored",) if rest else ()
    return Opened("dicom", tuple(found[Media.DICOM]), notes)


def _one_nifti(
    niftis: list[Path], found: dict[Media, list[Path]], notes: tuple[str, ...]
) -> Opened:
    if len(niftis) > 1 or Media.DICOM in found:
        raise UnsupportedMediaError(f"more than one image came; {ACCEPTED}")
    return Opened("nifti", (niftis[0],), notes)


def _listed(upload: Upload, max_files: int) -> tuple[list[Path], int]:
    """Every regular file below the upload's paths; links are not followed."""
    files: list[Path] = []
    ignored = upload.ignored
    for path in _walk(upload.paths):
        if is_junk_name(path.name):
            ignored += 1
            continue
        files.append(path)
        if len(files) > max_files:
            raise too_many_files(max_files)
    return files, ignored


def _walk(paths: Iterable[Path]) -> Iterator[Path]:
    for path in paths:
        if path.is_dir():
            yield from sorted(
                found for found in path.rglob("*") if found.is_file() and not found.is_symlink()
            )
        else:
            yield path


def _sorted_by_media(files: Iterable[Path]) -> tuple[dict[Media, list[Path]], int]:
    found: dict[Media, list[Path]] = {}
    empty = 0
    for path in files:
        media = media_of(path)
        if media is Media.EMPTY:
            empty += 1
        else:
            found.setdefault(media, []).append(path)
    return found, empty


def _holds_nifti(path: Path) -> bool:
    """Whether a gzip file holds NIfTI; raises ``ArchiveError`` when its start is damaged."""
    try:
        with gzip.open(path) as stream:
            head = stream.read(600)
    except (EOFError, OSError, zlib.error) as error:
        raise ArchiveError("the gzip file is damaged; send it again") from error
    return media_of(path, head) is Media.NIFTI


def _notes(ignored: int, empty: int) -> tuple[str, ...]:
    notes: tuple[str, ...] = ()
    if ignored:
        notes += (f"{ignored} files of the operating system ignored",)
    if empty:
        notes += (f"{empty} empty files ignored",)
    return notes
