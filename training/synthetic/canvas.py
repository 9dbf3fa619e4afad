"""A canvas that anatomy is painted on. Forms are signed distances (mm, negative inside) on a
coarse grid; they are smooth, so interpolating them gives sharp edges on the fine grid cheaply."""

from collections.abc import Sequence

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from model.types import Affine, MaskArray, ShapeZYX, SpacingZYX

from .noise import Field, blend, grains

PITCH_MM = 4.0
PITCH = (PITCH_MM,) * 3
EDGE_MM = 1.5
Point = tuple[float, float, float]  # (x, y, z)
Form = NDArray[np.floating]  # signed distance in mm on the coarse grid
Box = tuple[slice, slice, slice]


class Canvas:
    """Image and label under the brush, in LPS mm around (0, 0, 0).

    ``image``: ``(z, y, x)`` float32; ``label``: same shape; ``x``, ``y``, ``z``: coarse
    coordinates in mm (L, P, S positive) of a reference body, slightly warped.
    """

    def __init__(
        self, shape: ShapeZYX, spacing_mm: SpacingZYX, background: float, *, rng: Generator
    ) -> None:
        self.image: Field = np.full(shape, background, dtype=np.float32)
        self.label: MaskArray = np.zeros(shape, dtype=np.uint8)
        self.axes = tuple(
            ((np.arange(n) - (n - 1) / 2) * s).astype(np.float32)
            for n, s in zip(shape, spacing_mm, strict=True)
        )
        self.spacing_mm = spacing_mm
        coarse = tuple(_coarse(axis) for axis in self.axes)
        self.taps = tuple(_taps(axis) for axis in self.axes)
        self.edge_mm = max(EDGE_MM, 1.2 * min(spacing_mm))
        self.z, self.y, self.x = _warped(coarse, rng)

    @property
    def affine(self) -> Affine:
        """``(x, y, z, 1)`` indices to LPS mm: x to the left, y to the back, z to the head."""
        z, y, x = self.spacing_mm
        affine = np.diag([x, y, z, 1.0])
        affine[:3, 3] = [float(axis[0]) for axis in reversed(self.axes)]
        return affine

    def noise(self, grain_mm: float, rng: Generator) -> Field:
        """A smooth coarse field of about unit spread, with grains ``grain_mm`` wide."""
        return grains(self.x.shape, PITCH, grain_mm, rng)

    def ellipsoid(self, centre: Point, radii: Point) -> Field:
        x, y, z = ((self.x - centre[0]), (self.y - centre[1]), (self.z - centre[2]))
        near = np.sqrt((x / radii[0]) ** 2 + (y / radii[1]) ** 2 + (z / radii[2]) ** 2)
        slope = np.sqrt(
            (x / radii[0] ** 2) ** 2 + (y / radii[1] ** 2) ** 2 + (z / radii[2] ** 2) ** 2
        )
        return np.asarray(near * (near - 1.0) / np.maximum(slope, 1e-4), dtype=np.float32)

    def column(
        self, centre: tuple[float, float], radii: tuple[float, float], power: float = 2.0
    ) -> Field:
        """An endless elliptic cylinder along z; a ``power`` above 2 makes it squarer."""
        x = np.abs((self.x - centre[0]) / radii[0])
        y = np.abs((self.y - centre[1]) / radii[1])
        near = np.hypot(x, y) if power == 2.0 else (x**power + y**power) ** (1 / power)
        return np.asarray((near - 1.0) * min(radii), dtype=np.float32)

    def paint(
        self, form: Form, value: float, label: int | None = None, *, edge_mm: float | None = None
    ) -> None:
        """Mix ``value`` in where ``form`` is negative; ``label`` where more than half is."""
        edge = edge_mm or self.edge_mm
        found = _bounds(form < edge)
        if found is None:
            return
        inner, outer = self._boxes(found)
        weight = np.clip(0.5 - self._refine(form, inner, outer) / edge, 0.0, 1.0)
        part = self.image[outer]
        part += weight * (value - part)
        if label is not None:
            self.label[outer][weight > 0.5] = label

    def stroke(self, points: Sequence[Point], radii: Sequence[float], value: float) -> None:
        """A tapering line of capsules inside the liver (label 1), fine enough for vessels."""
        for a, b, r in zip(points, points[1:], radii, strict=False):
            self._capsule(np.array(a), np.array(b), r, value)

    def _capsule(
        self, a: NDArray[np.float64], b: NDArray[np.float64], radius: float, value: float
    ) -> None:
        low, high = np.minimum(a, b) - radius - 2.0, np.maximum(a, b) + radius + 2.0
        box = tuple(
            slice(*np.searchsorted(axis, (low[i], high[i])))
            for axis, i in zip(self.axes, (2, 1, 0), strict=True)
        )
        z, y, x = np.ix_(*(axis[s] for axis, s in zip(self.axes, box, strict=True)))
        d = (b - a).astype(np.float32)
        t = (x - a[0]) * d[0] + (y - a[1]) * d[1] + (z - a[2]) * d[2]
        t = np.clip(t / max(float(d @ d), 1e-6), 0.0, 1.0)
        far = (x - a[0] - t * d[0]) ** 2 + (y - a[1] - t * d[1]) ** 2 + (z - a[2] - t * d[2]) ** 2
        weight = np.clip(0.5 + (radius - np.sqrt(far)) / self.edge_mm, 0.0, 1.0)
        part = self.image[box]
        part += weight.astype(np.float32) * (self.label[box] == 1) * (value - part)

    def _boxes(self, found: Box) -> tuple[Box, Box]:
        """The coarse box with a margin, and the fine box that it determines."""
        inner, outer = [], []
        for (index, _), part, count in zip(self.taps, found, self.x.shape, strict=True):
            start, stop = max(0, part.start - 1), min(count, part.stop + 1)
            first, last = np.searchsorted(index[0], (start, stop - 1))
            inner.append(slice(start, stop))
            outer.append(slice(int(first), int(last)))
        return (inner[0], inner[1], inner[2]), (outer[0], outer[1], outer[2])

    def _refine(self, form: Form, inner: Box, outer: Box) -> Field:
        fine: Field = form[inner].astype(np.float32)
        for axis, (index, weights) in enumerate(self.taps):
            fine = blend(
                fine, index[:, outer[axis]] - inner[axis].start, weights[:, outer[axis]], axis
            )
        return fine


def _coarse(axis: Field) -> Field:
    count = int(np.ceil((axis[-1] - axis[0]) / PITCH_MM)) + 2
    return np.asarray(axis[0] + PITCH_MM * (np.arange(count) - 0.5), dtype=np.float32)


def _taps(fine: Field) -> tuple[NDArray[np.intp], Field]:
    """Linear interpolation from ``_coarse(fine)``: ``(2, n)`` indices and weights."""
    position = (fine - fine[0]) / PITCH_MM + 0.5
    below = position.astype(np.intp)
    part = (position - below).astype(np.float32)
    return np.stack([below, below + 1]), np.stack([1 - part, part])


def _warped(coarse: tuple[Field, ...], rng: Generator) -> tuple[Field, ...]:
    grids = np.meshgrid(*coarse, indexing="ij")
    return tuple(g + 4.0 * grains(g.shape, PITCH, 70.0, rng) for g in grids)


def _bounds(inside: NDArray[np.bool_]) -> Box | None:
    spans = []
    for axis in range(3):
        hits = np.flatnonzero(inside.any(axis=tuple(a for a in range(3) if a != axis)))
        if hits.size == 0:
            return None
        spans.append(slice(int(hits[0]), int(hits[-1]) + 1))
    return spans[0], spans[1], spans[2]
