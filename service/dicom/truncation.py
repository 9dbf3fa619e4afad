"""Whether a file ends before its pixels do, told from lengths alone."""

import struct

from .filebytes import FileBytes, PixelSpan, pixel_bytes
from .planes import SourceFile

ITEM, DELIMITER = 0xE000, 0xE0DD


def is_truncated(file: SourceFile) -> bool:
    """Native pixels shorter than declared, or an encapsulated stream that stops within a fragment
    or holds fewer fragments than frames."""
    span = file.pixels
    if span is None:
        return False
    if span.length is None:
        return count_fragments(pixel_bytes(file.path), span) < file.frames
    return min(span.length, file.size - span.start) < native_bytes(file)


def native_bytes(file: SourceFile) -> int:
    """Bytes of the uncompressed pixels."""
    return file.rows * file.columns * file.frames * (file.bits[0] // 8)


def count_fragments(data: FileBytes, span: PixelSpan) -> int:
    """Complete fragments, the offset table not counted; -1 where the last one is cut off."""
    position, found, size = span.start, -1, len(data)
    while position + 8 <= size:
        group, element, length = struct.unpack("<HHL", data[position : position + 8])
        if (group, element) != (0xFFFE, ITEM):
            return found if element == DELIMITER else -1
        position += 8 + length
        if position > size:
            return -1
        found += 1
    return found
