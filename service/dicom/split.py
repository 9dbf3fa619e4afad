"""Planes that share a SeriesInstanceUID, told apart into stacks that can each be a volume."""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from .duplicates import drop_identical
from .geometry import (
    MIN_SLICES,
    ORIENTATION_TOLERANCE,
    GateError,
    Vectors,
    build_grid,
    normal_of,
    sort_planes,
)
from .phases import ATTRIBUTES, dixon, split_note
from .planes import INSTANCE, SPLITTERS, Plane, Vector

MAX_ORIENTATIONS = 32
UNKNOWN: Vector = (9.0,) * 6  # no direction cosine; images without an orientation stay together
TIMES = (
    "AcquisitionTime",
    "AcquisitionDateTime",
    "FrameAcquisitionDateTime",
    "TriggerTime",
    "ContentTime",
)
NUMBER = "InstanceNumber"
MAX_PHASES = 16  # of a scan whose phases do not share positions


@dataclass(frozen=True)
class Part:
    """Planes that belong together, and how they were told from the rest."""

    planes: tuple[Plane, ...]
    notes: tuple[str, ...] = ()

    def noting(self, *notes: str) -> "Part":
        return Part(self.planes, (*self.notes, *notes))


def split_by_kind(planes: Sequence[Plane]) -> list[Part]:
    """By orientation (within 1e-3 of a direction cosine), then by ImageType.

    Raises ``GateError`` (``mixed_orientations``) for a series that turns like a propeller.
    """
    oriented = _by_orientation(planes)
    parts: list[Part] = []
    for group in oriented:
        kinds: dict[tuple[str, ...], list[Plane]] = {}
        for plane in group:
            kinds.setdefault(plane.image_type, []).append(plane)
        for kind in sorted(kinds):
            part = Part(tuple(kinds[kind]))
            part = part.noting(_kind_note(kind)) if len(kinds) > 1 else part
            parts.append(part.noting("split by orientation") if len(oriented) > 1 else part)
    return parts


def _kind_note(kind: tuple[str, ...]) -> str:
    word = dixon(kind)
    return f"split by image type: {word}" if word else "split by image type"


def merge_kinds(parts: list[Part]) -> list[Part]:
    """Undo a split by image type that cut one stack in pieces (some scanners write a type that
    differs slice by slice): pieces of one orientation that never meet in a position and are
    equidistant together."""
    if len(parts) < 2:
        return parts
    return [part for group in _same_orientation(parts) for part in _merged(group)]


def _same_orientation(parts: list[Part]) -> list[list[Part]]:
    groups = _by_orientation([part.planes[0] for part in parts])
    owner = {id(part.planes[0]): part for part in parts}
    return [[owner[id(plane)] for plane in group] for group in groups]


def _merged(parts: list[Part]) -> list[Part]:
    planes = tuple(plane for part in parts for plane in part.planes)
    if len(parts) < 2 or any(plane.position is None for plane in planes):
        return parts
    try:
        together = build_grid([group[0] for group in sort_planes(planes)])[0]
    except GateError:
        return parts
    whole = together.uniform and together.slices == len(planes)
    return [Part(planes)] if whole else parts


def split_duplicates(part: Part) -> list[Part]:
    """Until no two planes share a position: drop identical ones, then try what may differ.

    A part that cannot be told apart is returned as it is. Raises ``GateError`` where planes have
    no usable position.
    """
    groups = sort_planes(part.planes)
    if len(groups) < MIN_SLICES:
        return [_sorted(part, groups)]
    if _unique(groups):
        return _split_overlapping(_sorted(part, groups))
    groups, dropped = drop_identical(groups)
    part = part.noting(_dropped_note(dropped)) if dropped else part
    if _unique(groups):
        return _split_overlapping(_sorted(part, groups))
    return _tell_apart(_sorted(part, groups), groups)


def _tell_apart(part: Part, groups: list[list[Plane]]) -> list[Part]:
    most = max(map(len, groups))
    for name in _candidates(part.planes):
        found = _by_attribute(part, name, most)
        if found:
            return [piece for half in found for piece in split_duplicates(half)]
    return _by_order_in_time(part, groups) or _by_passes(part) or [part]


def _split_overlapping(part: Part) -> list[Part]:
    """Phases of overlapping ranges that share no position: together no regular stack, but one
    each. So are the stacks of a multi-frame image, which need not overlap."""
    if _almost_regular(part.planes):
        return [part]
    for name in _candidates(part.planes):
        found = _by_attribute(part, name, MAX_PHASES)
        stacks = found and all(_fits(piece.planes) for piece in found)
        if stacks and (name == "StackID" or _overlap(found)):
            return found
    return [part]


def _almost_regular(planes: Sequence[Plane]) -> bool:
    """Equidistant but for one missing slice: no mixture of phases looks like that."""
    try:
        grid = build_grid(planes)[0]
    except GateError:
        return False
    return grid.uniform or (grid.pitch == grid.step and grid.regular_slices - grid.slices <= 1)


def _fits(planes: Sequence[Plane]) -> bool:
    groups = sort_planes(planes)
    return _unique(groups) and _almost_regular([group[0] for group in groups])


def _overlap(parts: Sequence[Part]) -> bool:
    """Whether any two ranges along the normal have more in common than a slice's distance."""
    normal = normal_of(parts[0].planes[0])
    ranges = []
    for part in parts:
        heights = [float(np.array(plane.position) @ normal) for plane in part.planes]
        step = (max(heights) - min(heights)) / (len(heights) - 1)
        ranges.append((min(heights), max(heights) - step))
    ranges.sort()
    return any(after[0] < before[1] for before, after in pairwise(ranges))


def _candidates(planes: Sequence[Plane]) -> list[str]:
    present = {name for plane in planes for name in plane.splitters}
    return [
        *(name for name in SPLITTERS if name in present),
        *sorted(present.difference(SPLITTERS, {INSTANCE})),
        *({INSTANCE} & present),
    ]


def _by_attribute(part: Part, name: str, most: int) -> list[Part]:
    """Parts by one attribute; none unless each could be a volume on its own."""
    values: dict[Hashable, list[Plane]] = {}
    for plane in part.planes:
        values.setdefault(plane.splitters.get(name), []).append(plane)
    if not 1 < len(values) <= most:
        return []
    if any(len(sort_planes(planes)) < MIN_SLICES for planes in values.values()):
        return []
    keys = sorted(values, key=lambda value: (value is not None, value if value else ()))
    return [
        Part(tuple(values[key]), (*part.notes, split_note(name, keys, index)))
        for index, key in enumerate(keys)
    ]


def _by_order_in_time(part: Part, groups: list[list[Plane]]) -> list[Part]:
    """A repeated scan whose times differ slice by slice: the k-th of every position together."""
    most = len(groups[0])
    if any(len(group) != most for group in groups):
        return []
    for name in TIMES:
        times = [[plane.splitters.get(name) for plane in group] for group in groups]
        if all(None not in row and len(set(row)) == most for row in times):
            ranked = [sorted(group, key=_by(name)) for group in groups]
            return [
                _in_order(part, [group[k] for group in ranked], name, k, most) for k in range(most)
            ]
    return []


def _in_order(part: Part, planes: Sequence[Plane], name: str, index: int, count: int) -> Part:
    note = f"split by order of {ATTRIBUTES[name]}: {index + 1} of {count}"
    return Part(tuple(planes), (*part.notes, note))


def _by_passes(part: Part) -> list[Part]:
    """Scans one after the other over ranges that overlap: in the order of their times (or of the
    instance numbers) the slices run along the stack, turn back, and run again. Only where every
    run is a regular stack."""
    for name in (*TIMES, NUMBER):
        keys = [_moment(plane, name) for plane in part.planes]
        if None in keys or len(set(keys)) < len(keys):
            continue
        order = sorted(zip(keys, part.planes, strict=True), key=lambda pair: pair[0])
        passes = _runs([plane for _, plane in order])
        whole = min(map(len, passes)) >= MIN_SLICES and all(_fits(run) for run in passes)
        if 1 < len(passes) <= MAX_PHASES and whole:
            return [_in_order(part, run, name, k, len(passes)) for k, run in enumerate(passes)]
    return []


def _moment(plane: Plane, name: str) -> Any:
    return plane.number or None if name == NUMBER else plane.splitters.get(name)


def _runs(planes: Sequence[Plane]) -> list[list[Plane]]:
    """Cut wherever the direction along the normal changes."""
    normal = normal_of(planes[0])
    heights = [float(np.array(plane.position) @ normal) for plane in planes]
    runs = [[planes[0]]]
    direction = 0.0
    for plane, (before, after) in zip(planes[1:], pairwise(heights), strict=True):
        if len(runs[-1]) > 1 and (after - before) * direction <= 0:
            runs.append([plane])
        else:
            direction = after - before
            runs[-1].append(plane)
    return runs


def _by(name: str) -> Callable[[Plane], Any]:
    return lambda plane: plane.splitters[name]


def _by_orientation(planes: Sequence[Plane]) -> list[list[Plane]]:
    exact: dict[Vector, list[Plane]] = {}
    for plane in planes:
        exact.setdefault(plane.orientation or UNKNOWN, []).append(plane)
    clusters: list[tuple[Vectors, list[Plane]]] = []
    for orientation, members in exact.items():
        cosines = np.array(orientation)
        near = next((c for c in clusters if _close(c[0], cosines)), None)
        if near is not None:
            near[1].extend(members)
        else:
            clusters.append((cosines, members))
        if len(clusters) > MAX_ORIENTATIONS:
            raise GateError(
                "mixed_orientations", f"more than {MAX_ORIENTATIONS} orientations in one series"
            )
    ordered = sorted(clusters, key=lambda cluster: tuple(-cluster[0]))
    return [members for _, members in ordered]


def _close(one: Vectors, other: Vectors) -> bool:
    return bool(np.abs(one - other).max() <= ORIENTATION_TOLERANCE)


def _sorted(part: Part, groups: list[list[Plane]]) -> Part:
    return Part(tuple(plane for group in groups for plane in group), part.notes)


def _unique(groups: list[list[Plane]]) -> bool:
    return all(len(group) == 1 for group in groups)


def _dropped_note(dropped: int) -> str:
    images = "one image" if dropped == 1 else f"{dropped} images"
    return f"{images} sent twice (same position, identical pixels) dropped"
