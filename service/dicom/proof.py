"""The self-proof: a SEG decoded again from its own bytes and compared with the mask it came from.

Reads with pydicom alone, from the per-frame geometry, as a viewer would; nothing is shared with
the code that wrote it.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from model.types import MaskArray

from .errors import SegMismatchError
from .geometry import NativeGrid
from .segread import SegFrame, open_seg, plane_index, seg_frames, segment_numbers
from .series import Series
from .uids import is_uid

CENTROID_TOLERANCE_MM = 0.01

Point = tuple[float, float, float]


@dataclass(frozen=True)
class SegmentProof:
    """One segment. Centroids in LPS mm, ``None`` where it is empty."""

    number: int
    voxels_expected: int
    voxels_found: int
    centroid_expected_mm: Point | None
    centroid_found_mm: Point | None


@dataclass(frozen=True)
class Proof:
    """The figures kept with a job. ``frames``: in the SEG."""

    frames: int
    segments: tuple[SegmentProof, ...]

    def to_dict(self) -> dict[str, Any]:
        """JSON types."""
        return asdict(self)


@dataclass
class _Sum:
    """Voxels seen so far and the sum of their places."""

    voxels: int = 0
    moment: NDArray[np.float64] | None = None

    def add(self, frame: NDArray[np.bool_], matrix: NDArray[np.float64]) -> None:
        """``matrix``: ``(3, 3)``, (column, row, 1) to LPS mm."""
        by_row, by_column = frame.sum(axis=1), frame.sum(axis=0)
        count = int(by_row.sum())
        if count:
            x = float(by_column @ np.arange(len(by_column)))
            y = float(by_row @ np.arange(len(by_row)))
            moment = matrix @ np.array([x, y, count])
            self.moment = moment if self.moment is None else self.moment + moment
            self.voxels += count

    def centroid(self) -> Point | None:
        if self.moment is None:
            return None
        x, y, z = (self.moment / self.voxels).tolist()
        return x, y, z


def prove(seg: bytes | Path, series: Series, mask: MaskArray) -> Proof:
    """Compare a SEG, BINARY or LABELMAP, with the native mask ``(n, rows, columns)`` it was made
    from.

    Compared per segment: voxel counts and centroids in mm; per frame: the source plane it names
    lies where the frame lies, and its pixels equal the mask's. Raises ``SegMismatchError``.
    """
    dataset = open_seg(seg)
    frames = list(seg_frames(dataset))
    numbers = segment_numbers(dataset)
    found = _found(dataset, frames, numbers)
    expected = _expected(series.usable_grid(), mask, numbers)
    segments = tuple(
        SegmentProof(
            number,
            expected[number].voxels,
            found[number].voxels,
            expected[number].centroid(),
            found[number].centroid(),
        )
        for number in numbers
    )
    for segment in segments:
        _check(segment)
    for frame in frames:
        _check_plane(frame, series, mask)
    return Proof(int(dataset.NumberOfFrames), segments)


def _found(dataset: Dataset, frames: Sequence[SegFrame], numbers: list[int]) -> dict[int, _Sum]:
    shared = dataset.SharedFunctionalGroupsSequence[0]
    sums = {number: _Sum() for number in numbers}
    for frame in frames:
        matrix = _plane_matrix(
            frame.item.PlanePositionSequence[0].ImagePositionPatient,
            shared.PlaneOrientationSequence[0].ImageOrientationPatient,
            shared.PixelMeasuresSequence[0].PixelSpacing,
        )
        sums[frame.number].add(frame.pixels, matrix)
    return sums


def _expected(grid: NativeGrid, mask: MaskArray, numbers: list[int]) -> dict[int, _Sum]:
    sums = {number: _Sum() for number in numbers}
    orientation = (*grid.axes[:, 0], *grid.axes[:, 1])
    held = np.flatnonzero(mask.reshape(len(mask), -1).any(axis=1))
    for index in held:
        matrix = _plane_matrix(grid.positions[index], orientation, grid.pixel_spacing)
        for number in numbers:
            sums[number].add(mask[index] == number, matrix)
    return sums


def _plane_matrix(position: Any, orientation: Any, spacing: Any) -> NDArray[np.float64]:
    """(column, row, 1) to LPS mm (PS3.3 C.7.6.2.1.1)."""
    cosines = np.array([float(value) for value in orientation])
    between_rows, between_columns = float(spacing[0]), float(spacing[1])
    return np.stack(
        [
            cosines[:3] * between_columns,
            cosines[3:] * between_rows,
            np.array([float(value) for value in position]),
        ],
        axis=1,
    )


def _check(segment: SegmentProof) -> None:
    if segment.voxels_found != segment.voxels_expected:
        raise SegMismatchError(
            f"segment {segment.number} of the SEG decodes to {segment.voxels_found} voxels, "
            f"the mask has {segment.voxels_expected}"
        )
    if segment.centroid_expected_mm is None or segment.centroid_found_mm is None:
        return
    off = float(
        np.linalg.norm(
            np.subtract(segment.centroid_expected_mm, segment.centroid_found_mm, dtype=np.float64)
        )
    )
    if off > CENTROID_TOLERANCE_MM:
        raise SegMismatchError(
            f"segment {segment.number} of the SEG lies {off:.3f} mm from where the mask is"
        )


def _check_plane(frame: SegFrame, series: Series, mask: MaskArray) -> None:
    """The frame equals the mask in the plane at its place, and names that plane."""
    index = plane_index(frame.item, series.usable_grid())
    if not np.array_equal(frame.pixels, mask[index] == frame.number):
        raise SegMismatchError("a frame of the SEG differs from the mask's slice")
    source = frame.item.DerivationImageSequence[0].SourceImageSequence[0]
    plane = series.instances[index]
    named = str(source.ReferencedSOPInstanceUID), source.get("ReferencedFrameNumber")
    uid = plane.file.sop_instance_uid
    if (is_uid(uid) and uid != named[0]) or plane.frame != named[1]:
        raise SegMismatchError("a frame of the SEG names another source slice than its own")
