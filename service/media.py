"""What a file is, by its first bytes."""

from enum import Enum
from pathlib import Path, PurePosixPath

HEAD_BYTES = 600
JUNK_NAMES = frozenset({".ds_store", "thumbs.db", "desktop.ini", "ehthumbs.db", ".localized"})
JUNK_FOLDERS = frozenset({"__macosx", ".trashes", ".spotlight-v100", ".fseventsd"})
JUNK_STARTS = (b"\x00\x00\x00\x01Bud1", b"\x00\x05\x16\x07")  # .DS_Store, AppleDouble
ZIP_STARTS = (b"PK\x03\x04", b"PK\x05\x06", b"PK\x07\x08")
OTHER_ARCHIVES = (
    b"Rar!\x1a\x07",
    b"7z\xbc\xaf\x27\x1c",
    b"BZh",
    b"\xfd7zXZ\x00",
    b"\x28\xb5\x2f\xfd",
)
TAR_AT, TAR = 257, b"ustar"
PICTURES = (b"\x89PNG\r\n", b"\xff\xd8\xff", b"GIF8", b"%PDF-", b"<?xml", b"<!DOCTYPE", b"{")


class Media(Enum):
    EMPTY = "empty"
    ZIP = "zip"
    GZIP = "gzip"
    OTHER_ARCHIVE = "other archive"
    NIFTI = "nifti"
    DICOM = "dicom"  # or may be: DICOM without file meta has no signature
    JUNK = "junk"
    OTHER = "other"


def media_of(path: Path, head: bytes | None = None) -> Media:
    """The kind of a file, from its content alone."""
    if head is None:
        with path.open("rb") as stream:
            head = stream.read(HEAD_BYTES)
    if not head:
        return Media.EMPTY
    if head[128:132] == b"DICM":
        return Media.DICOM
    if head.startswith(JUNK_STARTS):
        return Media.JUNK
    return _by_signature(head)


def is_junk_name(name: str) -> bool:
    """Whether an operating system leaves files of this name in folders and archives."""
    parts = PurePosixPath(name.replace("\\", "/")).parts
    if not parts:
        return False
    last = parts[-1].lower()
    return (
        last in JUNK_NAMES
        or last.startswith("._")
        or any(part.lower() in JUNK_FOLDERS for part in parts)
    )


def _by_signature(head: bytes) -> Media:
    if head.startswith(ZIP_STARTS):
        return Media.ZIP
    if head.startswith(b"\x1f\x8b"):
        return Media.GZIP
    if head.startswith(OTHER_ARCHIVES) or head[TAR_AT : TAR_AT + 5] == TAR:
        return Media.OTHER_ARCHIVE
    if _is_nifti(head):
        return Media.NIFTI
    return Media.OTHER if head.lstrip().startswith(PICTURES) else Media.DICOM


def _is_nifti(head: bytes) -> bool:
    return head[344:347] in (b"n+1", b"ni1") or head[4:7] in (b"n+2", b"ni2")
