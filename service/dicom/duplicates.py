"""Planes sent twice: same place, identical pixels."""

import numpy as np

from .planes import Plane
from .rawpixels import UndecodableError, raw_plane, stored_plane


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
    kept: list[Plane] = []
    for plane in group:
        twins = [other for other in kept if _same_instance(plane, other)]
        if not any(_same_pixels(plane, other) for other in twins):
            kept.append(plane)
    return kept


def _identical(group: list[Plane]) -> bool:
    return all(_same_pixels(group[0], other) for other in group[1:])


def _same_instance(one: Plane, other: Plane) -> bool:
    uid = one.file.sop_instance_uid
    return bool(uid) and uid == other.file.sop_instance_uid and one.frame == other.frame


def _same_pixels(one: Plane, other: Plane) -> bool:
    if one.rescale != other.rescale:
        return False
    if one.file.syntax == other.file.syntax and raw_plane(one) == raw_plane(other):
        return True
    try:
        return np.array_equal(stored_plane(one), stored_plane(other))
    except UndecodableError:
        return False
