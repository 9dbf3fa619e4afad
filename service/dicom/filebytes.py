"""A DICOM file's bytes, its header, and where its pixels lie, in bounded memory."""

import mmap
import zlib
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, Literal, TypeAlias

from pydicom import dcmread
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.filereader import _read_file_meta_info as read_meta
from pydicom.filereader import read_dataset, read_preamble
from pydicom.tag import BaseTag, Tag
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

FileBytes: TypeAlias = bytes | mmap.mmap
Wanted: TypeAlias = list[str] | list[BaseTag]  # keywords or tags
PIXEL_TAGS = {(0x7FE0, 0x0008), (0x7FE0, 0x0009), (0x7FE0, 0x0010)}
MAX_INFLATED = 2**29  # bytes; a deflated data set beyond this is refused
SMALL_INFLATED, MAX_RATIO = 2**26, 100  # and beyond this ratio once it is no longer small
UNDEFINED = 0xFFFFFFFF
PREFIX = 132


class NotDicomError(Exception):
    """The file does not begin as DICOM does."""


class TooLargeError(Exception):
    """The file unpacks to more than is plausible."""


@dataclass(frozen=True)
class PixelSpan:
    """The pixel element's value: ``start`` and ``length`` in bytes within the file (or within the
    inflated data set); ``length`` is ``None`` for encapsulated pixels. ``floating``: Float or
    Double Float Pixel Data."""

    start: int
    length: int | None
    floating: bool = False


@dataclass(frozen=True)
class Parsed:
    """A header without its pixels, in the transfer syntax it was found in."""

    dataset: Dataset
    syntax: str
    little_endian: bool
    pixels: PixelSpan | None
    size: int  # bytes of the file, or of the inflated data set
    marked: bool  # has the DICM prefix


def parse(path: Path, tags: Wanted) -> Parsed:
    """Read ``tags`` of the header and find the pixels.

    Raises ``NotDicomError`` when the file is something else, ``TooLargeError`` for a deflate bomb,
    and whatever pydicom raises on a corrupt header.
    """
    data = read_bytes(path)
    if not looks_like_dicom(data):
        raise NotDicomError
    if is_deflated(data):
        return _parse_deflated(data, tags)
    return _parse_plain(data, tags)


def pixel_bytes(path: Path) -> FileBytes:
    """The bytes that ``PixelSpan`` offsets refer to."""
    data = read_bytes(path)
    return _inflate(data)[1] if is_deflated(data) else data


def read_bytes(path: Path) -> FileBytes:
    """The file, mapped: a declared length never makes anything allocate more than the file has."""
    with path.open("rb") as stream:
        try:
            return mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
        except ValueError:  # an empty file cannot be mapped
            return b""


def is_damage(error: Exception) -> bool:
    """Whether an error tells of what is in a file. Of a file that cannot be read the system tells
    with an ``errno``; pydicom raises a bare ``OSError`` for sequences that break off."""
    return not isinstance(error, OSError) or error.errno is None


def looks_like_dicom(data: FileBytes) -> bool:
    """``DICM`` after the preamble, or, without one, an element of group 2 or 8 at the start."""
    if has_prefix(data):
        return True
    head = bytes(data[:8])
    return len(head) == 8 and (
        (head[0] in (0x02, 0x08) and head[1] == 0 and head[3] == 0)
        or (head[0] == 0 and head[1] == 0x08 and head[2] == 0)
    )


def has_prefix(data: FileBytes) -> bool:
    return data[128:132] == b"DICM"


def is_deflated(data: FileBytes) -> bool:
    """Whether the file meta names Deflated Explicit VR Little Endian."""
    return has_prefix(data) and DeflatedExplicitVRLittleEndian.encode() in data[:1024]


def _parse_plain(data: FileBytes, tags: Wanted) -> Parsed:
    stream: Any = data if isinstance(data, mmap.mmap) else BytesIO(data)
    stream.seek(0)
    dataset = dcmread(stream, stop_before_pixels=True, force=True, specific_tags=tags)
    implicit, little = dataset.original_encoding
    declared = str(dataset.file_meta.get("TransferSyntaxUID", "")).strip()
    syntax = declared or _plain_syntax(bool(implicit), bool(little))
    pixels = _locate(data, stream.tell(), bool(implicit), bool(little))
    return Parsed(dataset, syntax, bool(little), pixels, len(data), has_prefix(data))


def _parse_deflated(data: FileBytes, tags: Wanted) -> Parsed:
    meta, inflated = _inflate(data)
    stream = BytesIO(inflated)
    wanted: list[BaseTag | int] = [Tag(tag) for tag in tags]
    dataset = read_dataset(
        stream, False, True, stop_when=lambda tag, *_: _is_pixel(tag), specific_tags=wanted
    )
    dataset.file_meta = meta
    pixels = _locate(inflated, stream.tell(), False, True)
    return Parsed(dataset, str(ExplicitVRLittleEndian), True, pixels, len(inflated), marked=True)


def _inflate(data: FileBytes) -> tuple[FileMetaDataset, bytes]:
    stream = BytesIO(data[:])
    read_preamble(stream, force=False)
    meta = read_meta(stream)
    engine = zlib.decompressobj(-zlib.MAX_WBITS)
    limit = min(MAX_INFLATED, max(SMALL_INFLATED, MAX_RATIO * len(data)))
    inflated = engine.decompress(stream.read(), limit)
    if engine.unconsumed_tail:
        raise TooLargeError
    return meta, inflated


def _plain_syntax(implicit: bool, little: bool) -> str:
    if implicit:
        return str(ImplicitVRLittleEndian)
    return str(ExplicitVRLittleEndian if little else ExplicitVRBigEndian)


def _is_pixel(tag: int) -> bool:
    return (tag >> 16, tag & 0xFFFF) in PIXEL_TAGS


def _locate(data: FileBytes, offset: int, implicit: bool, little: bool) -> PixelSpan | None:
    """The pixel element that begins at ``offset``; ``None`` when none does."""
    order: Literal["little", "big"] = "little" if little else "big"
    head = bytes(data[offset : offset + 12])
    tag = (int.from_bytes(head[0:2], order), int.from_bytes(head[2:4], order))
    if len(head) < 8 or tag not in PIXEL_TAGS:
        return None
    size = 8 if implicit else 12
    length = int.from_bytes(head[size - 4 : size], order)
    known = None if length == UNDEFINED else length
    return PixelSpan(offset + size, known, floating=tag[1] != 0x0010)
