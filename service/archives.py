"""Zip archives from strangers: judged before, and measured while, they are unpacked."""

import errno
import io
import re
import stat
import struct
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TypeAlias

from .errors import ArchiveError, EmptyUploadError, UploadTooLargeError
from .media import is_junk_name

CHUNK = 1024**2
RATIO_FREE_BYTES = 100 * CHUNK  # small archives may compress as well as they like
DIRECTORY_BYTES_PER_FILE = 1024
END_RECORD = b"PK\x05\x06"
END_RECORD_BYTES = 22
IN_ZIP64 = 2**32 - 1  # another record says how many there are
ENCRYPTED_FLAG = 0x1
UNREADABLE = (
    zipfile.BadZipFile, zlib.error, EOFError, struct.error, ValueError, OverflowError,
)  # fmt: skip
METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # an LZMA header may ask for 4 GiB of memory
DRIVE = re.compile(r"[A-Za-z]:")


Room: TypeAlias = Callable[[int], object]


@dataclass(frozen=True)
class ArchiveLimits:
    """``max_bytes`` unpacked, ``max_files`` members, ``max_ratio`` unpacked : packed."""

    max_bytes: int
    max_files: int
    max_ratio: float


def extract(
    archive: Path, folder: Path, limits: ArchiveLimits, room: Room = lambda _: None
) -> tuple[list[Path], int]:
    """Unpack into ``folder`` as numbered files; returns them and how many junk files were left out.
    ``room`` is called with the bytes that will be written, and raises where there is none for them.

    Raises ``ArchiveError`` with ``unsafe_archive`` (a path that leaves the folder, a link, a
    device), ``encrypted_archive`` or ``corrupt_archive``; ``EmptyUploadError``;
    ``UploadTooLargeError`` with ``archive_too_large`` or ``too_many_files``, by what is declared
    before a byte is written, and by what comes out while it is.
    """
    _check_directory_size(archive, limits)
    try:
        with _Measured(archive, limits) as stream, zipfile.ZipFile(stream) as opened:
            members = [one for one in opened.infolist() if not one.filename.endswith("/")]
            _check_members(members, archive.stat().st_size, limits)
            wanted = [member for member in members if not is_junk_name(member.filename)]
            room(sum(member.file_size for member in wanted))
            return _write_all(opened, wanted, folder, limits), len(members) - len(wanted)
    except UNREADABLE as error:
        raise ArchiveError("the zip is damaged or incomplete; send it again") from error
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        raise ArchiveError("the zip points before its own start; send it again") from error
    except NotImplementedError as error:
        raise ArchiveError("the zip needs a feature that is not supported") from error


class _Measured(io.BufferedReader):
    """An archive of which no more is read at once than a directory may have. ``zipfile`` reads the
    whole directory at once, and its size may be told in several places, which need not agree."""

    def __init__(self, archive: Path, limits: ArchiveLimits) -> None:
        super().__init__(io.FileIO(archive))
        self._limits = limits

    def read(self, size: int | None = -1, /) -> bytes:
        if (size or 0) > max(_directory_bytes(self._limits), 2 * CHUNK):
            raise _too_many(self._limits)
        return super().read(size)


def _check_directory_size(archive: Path, limits: ArchiveLimits) -> None:
    """Refuse a directory that is said to be huge, whether it is there or not."""
    size = archive.stat().st_size
    tail_bytes = min(size, END_RECORD_BYTES + 2**16)
    with archive.open("rb") as stream:
        stream.seek(size - tail_bytes)
        tail = stream.read()
    at = tail.rfind(END_RECORD)
    if at < 0 or len(tail) - at < END_RECORD_BYTES:
        raise ArchiveError("the zip has no end; send it again")
    (said,) = struct.unpack("<I", tail[at + 12 : at + 16])
    if said != IN_ZIP64 and said > _directory_bytes(limits):
        raise _too_many(limits)


def _directory_bytes(limits: ArchiveLimits) -> int:
    return limits.max_files * DIRECTORY_BYTES_PER_FILE


def _check_members(
    members: list[zipfile.ZipInfo], packed_bytes: int, limits: ArchiveLimits
) -> None:
    if not members:
        raise EmptyUploadError("the zip holds no files")
    if len(members) > limits.max_files:
        raise _too_many(limits)
    for member in members:
        _check_member(member)
    _check_total(sum(member.file_size for member in members), packed_bytes, limits)


def _check_member(member: zipfile.ZipInfo) -> None:
    if _leaves_folder(member.orig_filename) or _leaves_folder(member.filename):
        raise ArchiveError(
            "the zip holds a path that leads out of its folder", code="unsafe_archive"
        )
    kind = stat.S_IFMT(member.external_attr >> 16)
    if kind not in (0, stat.S_IFREG):
        raise ArchiveError("the zip holds a link or a device", code="unsafe_archive")
    if member.flag_bits & ENCRYPTED_FLAG:
        raise ArchiveError("the zip is encrypted; send it without a password",
                           code="encrypted_archive")  # fmt: skip
    if member.compress_type not in METHODS:
        raise ArchiveError("the zip is not compressed with deflate; make a plain zip")


def _leaves_folder(name: str) -> bool:
    parts = name.replace("\\", "/").split("/")
    return ".." in parts or parts[0] == "" or "\x00" in name or bool(DRIVE.match(name))


def _check_total(unpacked: int, packed: int, limits: ArchiveLimits) -> None:
    if unpacked > limits.max_bytes:
        raise UploadTooLargeError(
            f"the zip unpacks to more than {limits.max_bytes // CHUNK} MiB",
            code="archive_too_large",
        )
    if unpacked > RATIO_FREE_BYTES and unpacked > packed * limits.max_ratio:
        raise UploadTooLargeError(
            f"the zip unpacks to more than {limits.max_ratio:.0f} times its size",
            code="archive_too_large",
        )


def _write_all(
    opened: zipfile.ZipFile, members: list[zipfile.ZipInfo], folder: Path, limits: ArchiveLimits
) -> list[Path]:
    left = limits.max_bytes
    files = []
    for number, member in enumerate(members, start=1):
        path = folder / f"member-{number:06d}"
        with opened.open(member) as source, path.open("wb") as target:
            left = _copy(source, target, left, limits)
        files.append(path)
    return files


def _copy(source: IO[bytes], target: IO[bytes], left: int, limits: ArchiveLimits) -> int:
    while chunk := source.read(CHUNK):
        left -= len(chunk)
        if left < 0:
            _check_total(limits.max_bytes + 1, 1, limits)
        target.write(chunk)
    return left


def _too_many(limits: ArchiveLimits) -> UploadTooLargeError:
    return UploadTooLargeError(
        f"the zip holds more than {limits.max_files} files", code="too_many_files"
    )
