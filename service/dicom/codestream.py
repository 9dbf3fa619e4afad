"""The image size a compressed stream itself declares, read before a decoder allocates for it."""

import struct

SIZ = b"\xff\x4f\xff\x51"
SOI = b"\xff\xd8"
FRAME_MARKERS = {*range(0xC0, 0xD0), 0xF7} - {0xC4, 0xC8, 0xCC}
SEARCH = 4096  # bytes from the start of the pixel element


def declared_size(value: bytes, syntax: str) -> tuple[int, int] | None:
    """``(rows, columns)`` of the first JPEG, JPEG-LS or JPEG 2000 stream; ``None`` for another
    codec or where none is found near the start (the decoder decides then)."""
    head = value[:SEARCH]
    if (at := head.find(SIZ)) >= 0 and len(head) >= at + 24:
        width, height, left, top = struct.unpack(">4L", head[at + 8 : at + 24])
        return height - top, width - left
    if not syntax.startswith("1.2.840.10008.1.2.4.") or (at := head.find(SOI)) < 0:
        return None
    return _jpeg_size(head, at + 2)


def _jpeg_size(head: bytes, at: int) -> tuple[int, int] | None:
    while at + 9 <= len(head) and head[at] == 0xFF:
        marker, length = head[at + 1], int.from_bytes(head[at + 2 : at + 4], "big")
        if marker in FRAME_MARKERS:
            rows, columns = struct.unpack(">2H", head[at + 5 : at + 9])
            return rows, columns
        at += 2 + length
    return None
