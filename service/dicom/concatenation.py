"""Multi-frame images that come in several instances (PS3.3 C.7.6.16.2.2.4): whole or not."""

from collections.abc import Sequence

from .header import FileRecord
from .planes import SourceFile


def lacking_parts(records: Sequence[FileRecord]) -> str:
    """What is missing, in words; empty where every concatenation is whole (or there is none)."""
    for parts in _concatenations(records).values():
        numbers = {number for number, _, _ in _numbered(parts)}
        totals = {part.concatenation.total for part in parts if part.concatenation}
        wanted = max((total for total in totals if total), default=0)
        if wanted > len(numbers):
            return f": {len(numbers)} of {wanted} are here"
        if not _contiguous(parts):
            return ": the frames of one do not follow those of the one before"
    return ""


def whole_image(records: Sequence[FileRecord]) -> tuple[str, ...]:
    """A note for every image that was put together."""
    return tuple(
        f"a multi-frame image put together from {len(_numbered(parts))} parts"
        for parts in _concatenations(records).values()
        if len(_numbered(parts)) > 1
    )


def _concatenations(records: Sequence[FileRecord]) -> dict[str, list[SourceFile]]:
    found: dict[str, list[SourceFile]] = {}
    for record in records:
        if record.file is not None and record.file.concatenation is not None:
            found.setdefault(record.file.concatenation.uid, []).append(record.file)
    return found


def _numbered(parts: Sequence[SourceFile]) -> list[tuple[int, int | None, int]]:
    """Number, offset and frames of each part, in order; one that was sent twice counts once."""
    told = {
        (part.concatenation.number, part.concatenation.offset, part.frames)
        for part in parts
        if part.concatenation is not None
    }
    return sorted(told, key=lambda part: part[0])


def _contiguous(parts: Sequence[SourceFile]) -> bool:
    """Every part begins where the one before ends, where the headers say where it begins."""
    after = 0
    for _, offset, frames in _numbered(parts):
        if offset is not None and offset != after:
            return False
        after += frames
    return True
