"""A written SEG read again: its frames, and the native mask, labels and algorithm it carries.

Reads with pydicom alone; nothing is shared with the code that writes.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom import dcmread
from pydicom.dataset import Dataset

from model.spec import Code, Label
from model.types import MaskArray

from .algorithm import Algorithm
from .errors import SegMismatchError
from .geometry import NativeGrid
from .quiet import quiet

BACKGROUND = 0  # LABELMAP describes it as a segment of its own
PLACE_TOLERANCE_MM = 1e-3


@dataclass(frozen=True, eq=False)
class SegFrame:
    """One frame for one segment. ``item``: the frame's own functional groups; ``pixels``:
    ``(rows, columns)``, where the segment is."""

    item: Dataset
    number: int
    pixels: NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class SegContent:
    """``mask``: ``(n, rows, columns)`` on the grid it was read with. ``labels``: in the order of
    the segments, without a background."""

    dataset: Dataset
    mask: MaskArray
    labels: tuple[Label, ...]
    algorithm: Algorithm


def open_seg(seg: bytes | Path) -> Dataset:
    """The data set of a SEG, inflated where it is deflated."""
    with quiet():
        return dcmread(BytesIO(seg) if isinstance(seg, bytes) else seg)


def segment_numbers(dataset: Dataset) -> list[int]:
    """Of the described segments, without a background."""
    numbers = (int(item.SegmentNumber) for item in dataset.SegmentSequence)
    return [number for number in numbers if number != BACKGROUND]


def seg_frames(dataset: Dataset) -> Iterator[SegFrame]:
    """Every frame of a BINARY SEG with its segment; every frame of a LABELMAP once per segment.

    Raises ``SegMismatchError`` when a LABELMAP holds a value that no segment describes.
    """
    items = dataset.PerFrameFunctionalGroupsSequence
    if dataset.SegmentationType == "BINARY":
        for item, frame in zip(items, _bits(dataset), strict=True):
            yield SegFrame(item, _number(item), frame)
        return
    numbers = segment_numbers(dataset)
    for item, values in zip(items, _values(dataset), strict=True):
        if not np.isin(values, [BACKGROUND, *numbers]).all():
            raise SegMismatchError("a frame of the SEG holds a value that no segment describes")
        for number in numbers:
            yield SegFrame(item, number, values == number)


def plane_index(item: Dataset, grid: NativeGrid) -> int:
    """Which native slice a frame lies on. Raises ``SegMismatchError`` where there is none."""
    place = np.array([float(v) for v in item.PlanePositionSequence[0].ImagePositionPatient])
    index = int(np.argmin(np.abs(grid.positions - place).sum(axis=1)))
    if np.abs(grid.positions[index] - place).max() > PLACE_TOLERANCE_MM:
        raise SegMismatchError("a frame of the SEG lies where no source slice is")
    return index


def read_seg(seg: bytes | Path, grid: NativeGrid) -> SegContent:
    """The native mask and what describes it, from a SEG that was made on this grid.

    Raises ``SegMismatchError`` when it was not.
    """
    dataset = open_seg(seg)
    if (dataset.Rows, dataset.Columns) != (grid.rows, grid.columns):
        raise SegMismatchError("the SEG has another size than the source slices")
    mask: MaskArray = np.zeros((grid.slices, grid.rows, grid.columns), np.uint8)
    for frame in seg_frames(dataset):
        mask[plane_index(frame.item, grid)][frame.pixels] = frame.number
    segments = [item for item in dataset.SegmentSequence if int(item.SegmentNumber) != BACKGROUND]
    return SegContent(dataset, mask, tuple(map(_label, segments)), _algorithm(segments[0]))


def _bits(dataset: Dataset) -> NDArray[np.bool_]:
    """Decoded BINARY frames, ``(frames, rows, columns)``."""
    shape = _shape(dataset)
    packed = np.frombuffer(dataset.PixelData, np.uint8)
    bits = np.unpackbits(packed, count=int(np.prod(shape)), bitorder="little")
    frames: NDArray[np.bool_] = bits.reshape(shape).view(np.bool_)
    return frames


def _values(dataset: Dataset) -> NDArray[np.uint8] | NDArray[np.uint16]:
    """Frames of a LABELMAP, ``(frames, rows, columns)``."""
    kind = "u1" if int(dataset.BitsAllocated) == 8 else "<u2"
    shape = _shape(dataset)
    values = np.frombuffer(dataset.PixelData, kind, count=int(np.prod(shape)))
    return values.reshape(shape)


def _shape(dataset: Dataset) -> tuple[int, int, int]:
    return int(dataset.NumberOfFrames), int(dataset.Rows), int(dataset.Columns)


def _number(item: Dataset) -> int:
    return int(item.SegmentIdentificationSequence[0].ReferencedSegmentNumber)


def _label(segment: Dataset) -> Label:
    region = segment.get("AnatomicRegionSequence")
    lightness, a, b = (int(value) for value in segment.RecommendedDisplayCIELabValue)
    return Label(
        value=int(segment.SegmentNumber),
        name=str(segment.SegmentLabel),
        category=_code(segment.SegmentedPropertyCategoryCodeSequence[0]),
        type=_code(segment.SegmentedPropertyTypeCodeSequence[0]),
        cielab=(lightness, a, b),
        region=_code(region[0]) if region else None,
    )


def _code(item: Dataset) -> Code:
    return Code(
        value=str(item.CodeValue),
        scheme=str(item.CodingSchemeDesignator),
        meaning=str(item.CodeMeaning),
    )


def _algorithm(segment: Dataset) -> Algorithm:
    item = segment.SegmentationAlgorithmIdentificationSequence[0]
    return Algorithm(str(item.AlgorithmName), str(item.AlgorithmVersion))
