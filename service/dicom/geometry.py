"""The geometry gate: planes in any order to a stack in space, or the code that says why not."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from model.types import Affine, SpacingZYX
from model.volume import MIN_SPACING_MM

from .planes import Plane

MIN_SLICES = 3
POSITION_TOLERANCE_MM = 0.01  # jitter of a position; planes nearer than this are duplicates
GAP_TOLERANCE_MM = 2 * POSITION_TOLERANCE_MM
DRIFT_TOLERANCE_MM = 0.05  # of a slice from its place on the equidistant grid
ORIENTATION_TOLERANCE = 1e-3  # of a direction cosine; also of the slice direction (no tilt)
MAX_TILT_DEGREES = 45.0  # a gantry tilts by 30 at most; beyond this slices are no stack
SPACING_TOLERANCE = 1e-3  # relative, of PixelSpacing within a series
IN_PLANE_TOLERANCE_MM = 0.1  # a slice off the line through the stack
HOLE = 1.5  # a gap this many times the usual one is a hole
RUN = 3  # as many equal gaps in a row are a protocol, not holes
MAX_GAP_MM = 50.0

Vectors = NDArray[np.float64]


class GateError(Exception):
    """A series cannot be a volume: ``code`` and a sentence without patient data."""

    def __init__(self, code: str, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


@dataclass(frozen=True, eq=False)
class NativeGrid:
    """Where the native slices are.

    ``positions``: ``(n, 3)`` LPS mm, centre of each slice's first voxel, ascending along
    ``normal``. ``axes``: ``(3, 3)``, columns are the directions of x (along a row), y (down a
    column) and the normal. ``pixel_spacing``: (between rows, between columns) in mm. ``step``: mm
    between slices along the normal (the usual one where they vary). ``uniform``: slices are
    equidistant. Of a tilted gantry the stack leans: ``slope`` is not along the normal.
    """

    positions: Vectors
    axes: Vectors
    pixel_spacing: tuple[float, float]
    rows: int
    columns: int
    step: float
    uniform: bool

    @property
    def slices(self) -> int:
        return len(self.positions)

    @property
    def distances(self) -> Vectors:
        """mm along the normal from the first slice, ``(n,)``."""
        offsets: Vectors = (self.positions - self.positions[0]) @ self.axes[:, 2]
        return offsets

    @property
    def spacing_mm(self) -> SpacingZYX:
        return self.step, *self.pixel_spacing

    @property
    def slope(self) -> Vectors:
        """Along the stack, mm per mm along the normal."""
        line: Vectors = (self.positions[-1] - self.positions[0]) / self.distances[-1]
        return line

    @property
    def tilt_degrees(self) -> float:
        """Between the line through the stack and the slices' normal; 0 within the tolerance."""
        return _tilt(self.slope, self.axes)

    @property
    def pitch(self) -> float:
        """mm along the normal between slices of the equidistant grid: ``step``, or half of it where
        slices lie beside that grid, so that interpolating twice blurs little."""
        places = self.distances / self.step
        on_grid = np.abs(places - np.rint(places)).max() * self.step <= DRIFT_TOLERANCE_MM
        return self.step if self.uniform or on_grid else self.step / 2

    @property
    def regular_slices(self) -> int:
        """Slices of the equidistant grid that spans the stack."""
        return round(float(self.distances[-1]) / self.pitch) + 1

    @property
    def affine(self) -> Affine:
        """Of the equidistant grid, ``(x, y, z, 1)`` to LPS mm."""
        affine = np.eye(4)
        affine[:3, 0] = self.axes[:, 0] * self.pixel_spacing[1]
        affine[:3, 1] = self.axes[:, 1] * self.pixel_spacing[0]
        affine[:3, 2] = self.slope * self.pitch
        affine[:3, 3] = self.positions[0]
        return affine

    def in_patient(self, index: int, points: Vectors) -> Vectors:
        """LPS mm of points ``(n, 2)``, (column, row), of a native slice; ``(n, 3)``."""
        steps = np.array([self.pixel_spacing[1], self.pixel_spacing[0]])
        placed: Vectors = self.positions[index] + (points * steps) @ self.axes[:, :2].T
        return placed

    def in_slice(self, index: int, points: Vectors) -> Vectors:
        """The inverse: (column, row), ``(n, 2)``, of points ``(n, 3)`` dropped onto a slice."""
        steps = np.array([self.pixel_spacing[1], self.pixel_spacing[0]])
        across: Vectors = (points - self.positions[index]) @ self.axes[:, :2] / steps
        return across


def normal_of(plane: Plane) -> Vectors:
    """Unit normal of a plane (row direction x column direction)."""
    normal: Vectors = axes_of(plane)[:, 2]
    return normal


def axes_of(plane: Plane) -> Vectors:
    """Orthonormal axes of a plane, see ``NativeGrid.axes``.

    Raises ``GateError``: ``no_geometry`` without an orientation, ``invalid_geometry`` when its
    two directions are not unit vectors at right angles.
    """
    if plane.orientation is None:
        raise GateError("no_geometry", "the images carry no orientation in the patient")
    row, column = np.array(plane.orientation[:3]), np.array(plane.orientation[3:])
    lengths = np.linalg.norm(row), np.linalg.norm(column)
    if max(abs(length - 1.0) for length in lengths) > 0.01 or abs(row @ column) > 0.01:
        raise GateError("invalid_geometry", "the orientation is not two perpendicular directions")
    row = row / lengths[0]
    column = column - (column @ row) * row
    column = column / np.linalg.norm(column)
    return np.stack([row, column, np.cross(row, column)], axis=1)


def sort_planes(planes: Sequence[Plane]) -> list[list[Plane]]:
    """Planes of one orientation grouped by position, ascending along the normal.

    Raises ``GateError`` as ``axes_of``, and ``no_geometry`` where a position is missing.
    """
    if any(plane.position is None for plane in planes):
        raise GateError("no_geometry", "images carry no position in the patient")
    normal = normal_of(planes[0])
    place = {id(plane): float(np.array(plane.position) @ normal) for plane in planes}
    ordered = sorted(planes, key=lambda plane: (place[id(plane)], plane.number))
    groups: list[list[Plane]] = []
    for plane in ordered:
        if groups and place[id(plane)] - place[id(groups[-1][0])] < POSITION_TOLERANCE_MM:
            groups[-1].append(plane)
        else:
            groups.append([plane])
    return groups


def build_grid(planes: Sequence[Plane]) -> tuple[NativeGrid, tuple[str, ...]]:
    """The grid of planes that are sorted and hold one plane per position, and notes.

    Raises ``GateError``: ``too_few_slices``, ``no_geometry``, ``invalid_geometry``,
    ``inconsistent_pixel_grid``, ``gantry_tilt`` (beyond 45 degrees), ``irregular_positions``,
    ``missing_slices``.
    """
    if len(planes) < MIN_SLICES:
        raise GateError("too_few_slices", f"{len(planes)} slices; a volume needs {MIN_SLICES}")
    pixel_spacing = _pixel_spacing(planes)
    axes = axes_of(planes[0])
    positions = np.array([plane.position for plane in planes], dtype=np.float64)
    _check_line(positions, axes)
    step, uniform, notes = _spacing(np.diff((positions - positions[0]) @ axes[:, 2]))
    grid = NativeGrid(
        positions=positions,
        axes=axes,
        pixel_spacing=pixel_spacing,
        rows=planes[0].file.rows,
        columns=planes[0].file.columns,
        step=step,
        uniform=uniform,
    )
    tilt = grid.tilt_degrees
    return grid, ((f"tilted by {tilt:.1f} degrees", *notes) if tilt else notes)


def _pixel_spacing(planes: Sequence[Plane]) -> tuple[float, float]:
    sizes = {(plane.file.rows, plane.file.columns) for plane in planes}
    if len(sizes) > 1:
        raise GateError("inconsistent_pixel_grid", f"slices have {len(sizes)} different sizes")
    if any(plane.pixel_spacing is None for plane in planes):
        raise GateError("no_geometry", "images carry no pixel spacing")
    spacing = np.array([plane.pixel_spacing for plane in planes], dtype=np.float64)
    if not (spacing.min() >= MIN_SPACING_MM and spacing.max() <= MAX_GAP_MM):
        raise GateError("invalid_geometry", "the pixel spacing is not a plausible positive length")
    if np.ptp(spacing / spacing[0], axis=0).max() > SPACING_TOLERANCE:
        raise GateError("inconsistent_pixel_grid", "the pixel spacing varies within the series")
    return float(spacing[0, 0]), float(spacing[0, 1])


def _check_line(positions: Vectors, axes: Vectors) -> None:
    """The slices' first voxels must lie on one line, not too far from the normal."""
    offsets = positions - positions[0]
    total = offsets[-1]
    height = float(total @ axes[:, 2])
    if not np.isfinite(positions).all() or height <= 0 or height > 10_000:
        raise GateError("invalid_geometry", "the slice positions are not plausible")
    slope = total / height
    line = np.outer(offsets @ axes[:, 2], slope)
    if np.abs(offsets - line).max() > IN_PLANE_TOLERANCE_MM:
        raise GateError("irregular_positions", "the slices do not lie on one straight line")
    tilt = _tilt(slope, axes)
    if tilt > MAX_TILT_DEGREES:
        raise GateError(
            "gantry_tilt",
            f"the slices are sheared by {tilt:.0f} degrees; at most {MAX_TILT_DEGREES:.0f} can be "
            "a stack",
        )


def _tilt(slope: Vectors, axes: Vectors) -> float:
    """Degrees between ``slope`` (per mm along the normal) and the normal; 0 within tolerance."""
    lean = float(np.linalg.norm(slope - axes[:, 2]))
    return float(np.degrees(np.arctan(lean))) if lean > ORIENTATION_TOLERANCE else 0.0


def _spacing(gaps: Vectors) -> tuple[float, bool, tuple[str, ...]]:
    """Usual step, whether all gaps equal it, and what to tell about it."""
    step = _usual(gaps)
    if gaps.max() > MAX_GAP_MM:
        raise GateError("missing_slices", f"slices are up to {gaps.max():.0f} mm apart")
    if _equidistant(gaps):
        return float(gaps.mean()), True, ()
    missing = _missing(gaps, step)
    if missing > 1:
        raise GateError("missing_slices", f"{missing} slices are missing")
    if missing == 1:
        return step, False, ("one slice is missing; its place was interpolated by position",)
    note = (
        f"slice spacing varies from {gaps.min():.2f} to {gaps.max():.2f} mm; resampled by position"
    )
    return step, False, (note,)


def _equidistant(gaps: Vectors) -> bool:
    off = gaps - gaps.mean()
    drift = np.abs(np.cumsum(off)).max()
    return bool(np.abs(off).max() <= GAP_TOLERANCE_MM and drift <= DRIFT_TOLERANCE_MM)


def _usual(gaps: Vectors) -> float:
    """The commonest gap (the smaller of equally common ones), averaged over its kind."""
    counts = [int((np.abs(gaps - gap) <= GAP_TOLERANCE_MM).sum()) for gap in gaps]
    most = max(counts)
    gap = min(gap for gap, count in zip(gaps, counts, strict=True) if count == most)
    return float(gaps[np.abs(gaps - gap) <= GAP_TOLERANCE_MM].mean())


def _missing(gaps: Vectors, step: float) -> int:
    """Slices missing in holes; longer runs of a wider gap are taken as a protocol's choice."""
    wide = gaps > HOLE * step
    lost = np.where(wide, np.maximum(np.rint(gaps / step) - 1, 1), 0).astype(int)
    return sum(int(lost[i]) for i in np.flatnonzero(wide) if _run(gaps, int(i)) < RUN)


def _run(gaps: Vectors, at: int) -> int:
    """How many gaps in a row around ``at`` equal it."""
    same = np.abs(gaps - gaps[at]) <= GAP_TOLERANCE_MM
    before = int(np.argmin(same[at::-1])) if not same[at::-1].all() else at + 1
    after = int(np.argmin(same[at:])) if not same[at:].all() else len(gaps) - at
    return before + after - 1
