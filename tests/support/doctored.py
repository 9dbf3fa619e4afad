"""SEGs as a faulty archive or writer would give them back."""

from collections.abc import Callable, Mapping
from copy import deepcopy

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

Doctor = Callable[[Dataset], None]


def frames_of(seg: Dataset) -> NDArray[np.uint8]:
    """``(frames, rows, columns)`` of a BINARY SEG."""
    shape = (int(seg.NumberOfFrames), int(seg.Rows), int(seg.Columns))
    packed = np.frombuffer(seg.PixelData, np.uint8)
    return np.unpackbits(packed, count=int(np.prod(shape)), bitorder="little").reshape(shape)


def put_frames(seg: Dataset, frames: NDArray[np.uint8]) -> None:
    packed = np.packbits(frames.ravel(), bitorder="little").tobytes()
    seg.PixelData = packed + b"\0" * (len(packed) % 2)


def mirrored(seg: Dataset) -> None:
    put_frames(seg, frames_of(seg)[:, :, ::-1])


def upside_down(seg: Dataset) -> None:
    put_frames(seg, frames_of(seg)[:, ::-1, :])


def one_voxel_aside(seg: Dataset) -> None:
    put_frames(seg, np.roll(frames_of(seg), 1, axis=2))


def one_slice_on(seg: Dataset) -> None:
    """The pixels of each frame in the place of the next one."""
    put_frames(seg, np.roll(frames_of(seg), 1, axis=0))


def one_frame_less(seg: Dataset) -> None:
    frames = frames_of(seg)
    middle = len(frames) // 2
    put_frames(seg, np.delete(frames, middle, axis=0))
    del seg.PerFrameFunctionalGroupsSequence[middle]
    seg.NumberOfFrames = len(frames) - 1


def segments_exchanged(seg: Dataset) -> None:
    for item in seg.PerFrameFunctionalGroupsSequence:
        number = item.SegmentIdentificationSequence[0]
        number.ReferencedSegmentNumber = 3 - int(number.ReferencedSegmentNumber)


def another_slice_named(seg: Dataset) -> None:
    items = seg.PerFrameFunctionalGroupsSequence
    first, last = (item.DerivationImageSequence for item in (items[0], items[10]))
    items[0].DerivationImageSequence, items[10].DerivationImageSequence = last, deepcopy(first)


def no_slice_named(seg: Dataset) -> None:
    del seg.PerFrameFunctionalGroupsSequence[3].DerivationImageSequence


def between_slices(seg: Dataset) -> None:
    place = seg.PerFrameFunctionalGroupsSequence[5].PlanePositionSequence[0]
    x, y, z = place.ImagePositionPatient
    place.ImagePositionPatient = [x, y, float(z) + 0.7]


def turned(seg: Dataset) -> None:
    shared = seg.SharedFunctionalGroupsSequence[0].PlaneOrientationSequence[0]
    shared.ImageOrientationPatient = [-1, 0, 0, 0, 1, 0]


def another_spacing(seg: Dataset) -> None:
    seg.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].PixelSpacing = [2.0, 2.1]


def another_space(seg: Dataset) -> None:
    seg.FrameOfReferenceUID = "1.2.3"


def another_study(seg: Dataset) -> None:
    seg.StudyInstanceUID = "1.2.3"


def nothing_said(seg: Dataset) -> None:
    seg.SeriesDescription = "Liver segmentation"


DOCTORS: Mapping[Doctor, set[str]] = {
    mirrored: {"mask"},
    upside_down: {"mask"},
    one_voxel_aside: {"mask"},
    one_slice_on: {"mask"},
    one_frame_less: {"mask", "liver in the SEG"},
    segments_exchanged: {"mask", "tumour in the SEG"},
    another_slice_named: {"frames name their slice"},
    no_slice_named: {"frames name their slice"},
    between_slices: {"frames lie on slices", "frames name their slice", "mask", "liver in the SEG"},
    turned: {"lies on the phantom's grid"},
    another_spacing: {"lies on the phantom's grid"},
    another_space: {"belongs to the phantom"},
    another_study: {"belongs to the phantom"},
    nothing_said: {"says that it is a test"},
}
"""Each with the checks that have to fail for it, of an axial phantom with a tumour."""
