"""Closed outlines of a mask's slice.

Coordinates are (column, row) of one slice; whole numbers are the centres of voxels. Outlines run
half way between a voxel that is inside and its neighbour that is not, so that every centre lies on
its side of the line: who fills an outline again by centres gets the same voxels.
"""

import itertools
from typing import Final, TypeAlias

import numpy as np
from contourpy import FillType, contour_generator
from numpy.typing import NDArray

Ring: TypeAlias = NDArray[np.float64]  # (points, 2), (column, row), not closed by a repeated point

_HALF_WAY: Final = 0.5
_ABOVE: Final = 2.0
_ASIDE: Final = 0.25


def outlines(inside: NDArray[np.bool_]) -> list[Ring]:
    """One ring per connected piece of a slice ``(rows, columns)``. A hole is joined to the ring
    around it by a channel of no width, there and back (the keyhole of PS3.3 C.8.8.6.3)."""
    rows, columns = np.flatnonzero(inside.any(axis=1)), np.flatnonzero(inside.any(axis=0))
    if not rows.size:
        return []
    box = inside[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    shift = np.array([columns[0] - 1.0, rows[0] - 1.0])
    lines = contour_generator(z=np.pad(box, 1).astype(np.float64), fill_type=FillType.OuterOffset)
    filled = lines.filled(_HALF_WAY, _ABOVE)
    return [
        _keyhole(_rings(np.asarray(points), np.asarray(offsets))) + shift
        for points, offsets in zip(filled[0], filled[1], strict=True)
    ]


def _rings(points: NDArray[np.float64], offsets: NDArray[np.integer]) -> list[Ring]:
    """The outer ring, then the holes."""
    return [_corners(points[start : end - 1]) for start, end in itertools.pairwise(offsets)]


def _corners(ring: Ring) -> Ring:
    """Without points on straight lines."""
    before, after = ring - np.roll(ring, 1, axis=0), np.roll(ring, -1, axis=0) - ring
    turns: NDArray[np.bool_] = before[:, 0] * after[:, 1] != before[:, 1] * after[:, 0]
    return ring[turns]


def _keyhole(rings: list[Ring]) -> Ring:
    ring, *holes = rings
    for hole in sorted(holes, key=lambda each: float(each[:, 1].min())):
        ring = _joined(ring, hole)
    return ring


def _joined(ring: Ring, hole: Ring) -> Ring:
    """The channel leads up from the hole's top between two columns of centres: on none of them
    can anybody be in doubt."""
    column = float(np.ceil(hole[:, 0].min())) + _ASIDE
    start, top = min(_crossings(hole, column), key=lambda crossing: crossing[1])
    above = (crossing for crossing in _crossings(ring, column) if crossing[1] < top)
    end, bottom = max(above, key=lambda crossing: crossing[1])
    inner, outer = np.array([[column, top]]), np.array([[column, bottom]])
    turned = np.roll(hole, -start - 1, axis=0)
    return np.concatenate([ring[: end + 1], outer, inner, turned, inner, outer, ring[end + 1 :]])


def _crossings(ring: Ring, column: float) -> list[tuple[int, float]]:
    """Where edges cross a column: the edge's first point and the row."""
    after = np.roll(ring, -1, axis=0)
    edges = np.flatnonzero((ring[:, 0] <= column) != (after[:, 0] <= column))
    one, two = ring[edges], after[edges]
    share = (column - one[:, 0]) / (two[:, 0] - one[:, 0])
    rows = one[:, 1] + share * (two[:, 1] - one[:, 1])
    return list(zip(edges.tolist(), rows.tolist(), strict=True))
