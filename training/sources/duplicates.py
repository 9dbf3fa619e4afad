"""One scan under two names: by mask, and by header."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from model.types import ShapeZYX, SpacingZYX

_FEW_VOXELS = 200  # two small tumours can have one voxel count by chance
_MOMENTS = 0.01  # relative difference of moments of one shape
_SPACING = 1e-4


@dataclass(frozen=True)
class Entry:
    """What a case is recognised by. ``where``: its root, for messages."""

    case: str
    patient: str
    source: str
    shape: ShapeZYX
    spacing_mm: SpacingZYX
    liver_voxels: int
    tumour_voxels: int
    moments: tuple[float, float, float]
    where: str = ""


@dataclass(frozen=True)
class Duplicate:
    """``case`` is ``of``: surely (``mask``), or perhaps (``header``: shape and spacing agree)."""

    case: str
    of: str
    by: Literal["mask", "header"]
    where: str = ""


def find_duplicates(new: Sequence[Entry], known: Iterable[Entry]) -> list[Duplicate]:
    """Each case of ``new`` that is one of ``known`` or an earlier one of ``new``.

    Two series of one patient in one source are no duplicates: they share masks by design.
    A duplicate by mask has a class (liver, tumour, or both together) of exactly the same number of
    voxels and a foreground of the same shape, however it is flipped or its header reads.
    """
    earlier = list(known)
    found = []
    for entry in new:
        match = _match(entry, earlier)
        if match is not None:
            found.append(match)
        earlier.append(entry)
    return found


def _match(entry: Entry, earlier: Sequence[Entry]) -> Duplicate | None:
    others = [other for other in earlier if not _same_study(entry, other)]
    for other in others:
        if _same_mask(entry, other):
            return Duplicate(entry.case, other.case, "mask", other.where)
    for other in others:
        if entry.source != other.source and _same_header(entry, other):
            return Duplicate(entry.case, other.case, "header", other.where)
    return None


def _same_study(first: Entry, second: Entry) -> bool:
    return first.source == second.source and first.patient == second.patient


def _same_mask(first: Entry, second: Entry) -> bool:
    alike = np.allclose(first.moments, second.moments, rtol=_MOMENTS, atol=0.01)
    return alike and any(
        count == other and count >= _FEW_VOXELS
        for count, other in zip(_counts(first), _counts(second), strict=True)
    )


def _counts(entry: Entry) -> tuple[int, int, int]:
    liver, tumour = entry.liver_voxels, entry.tumour_voxels
    return liver, tumour, liver + tumour


def _same_header(first: Entry, second: Entry) -> bool:
    return sorted(first.shape) == sorted(second.shape) and np.allclose(
        sorted(first.spacing_mm), sorted(second.spacing_mm), rtol=_SPACING
    )
