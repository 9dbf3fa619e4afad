"""Planes sent twice: same place, identical pixels."""

import numpy as np

from .planes import Plane
from .rawpixels import UndecodableError, is_native, raw_plane, stored_plane


def drop_identical(groups: list[list[Plane]]) -> tuple[list[list[Plane]], int]:
    """Reduce every position to one plane where all its planes hold identical pixels.

    All or nothing, because two phases of one scan may agree in an empty slice: unless every
    duplicate is identical, only copies of the same instance go. Returns the groups and the number
    of planes dropped.
    """
    reduced = [_without_copies(group) for group in groups]
    if all(_identical(group) for group in reduced):
        reduced = [group[:1] for group in reduced]
    return reduced, sum(map(len, groups)) - sum(map(len, reduced))


def _without_copies(group: list[Plane]) -> list[Plane]:
    """One of each SOP instance and frame, as far as the copies' pixels are identical."""
    first: dict[tuple[str, int | None], Plane] = {}
    kept: list[Plane] = []
    for plane in group:
        identity = plane.file.sop_instance_uid, plane.frame
        twin = first.setdefault(identity, plane) if identity[0] else plane
        if twin is plane or not _same_pixels(plane, twin):
            kept.append(plane)
    return kept


def _identical(group: list[Plane]) -> bool:
    return all(_same_pixels(group[0], other) for other in group[1:])


def _same_pixels(one: Plane, other: Plane) -> bool:
    if one.rescale != other.rescale:
        return False
    if _comparable_raw(one, other) and raw_plane(one) == raw_plane(other):
        return True
    try:
        return np.array_equal(stored_plane(one), stored_plane(other))
    except UndecodableError:
        return False


def _comparable_raw(one: Plane, other: Plane) -> bool:
    """Stored bytes speak for a plane; those of a compressed multi-frame file for all its planes."""
    whole = one.frame is None and other.frame is None
    return one.file.syntax == other.file.syntax and (whole or is_native(one.file))
