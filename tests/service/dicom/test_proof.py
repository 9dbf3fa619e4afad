"""The proof fails for every way in which a SEG can be wrong."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from dicom_phantoms import Grid, body, labels, write_series
from pydicom import dcmread
from pydicom.dataset import Dataset

from model.spec import LIVER_LABEL, TUMOUR_LABEL
from service.dicom.errors import SegMismatchError
from service.dicom.proof import prove
from service.dicom.seg import Algorithm, build_seg, to_bytes
from service.dicom.series import Series, choose, scan

GRID = Grid()
VALUES = body(GRID)
MASK = labels(VALUES)


def series_of(tmp_path: Path) -> Series:
    return choose(scan(write_series(tmp_path, VALUES, GRID), "ct"))[0]


def seg_of(series: Series) -> Dataset:
    labels_ = (LIVER_LABEL, TUMOUR_LABEL)
    return build_seg(series, MASK, labels_, Algorithm("small", "1"), "key")


def test_figures(tmp_path: Path) -> None:
    series = series_of(tmp_path)
    seg = seg_of(series)
    proof = prove(to_bytes(seg), series, MASK)
    assert proof.frames == seg.NumberOfFrames
    for segment in proof.segments:
        inside = segment.number == MASK
        assert segment.voxels_found == segment.voxels_expected == inside.sum()
        assert segment.centroid_found_mm == pytest.approx(GRID.world()[inside].mean(axis=0))
    assert proof.to_dict()["segments"][0]["number"] == 1


def test_slices_without_a_valid_uid_are_proved_by_the_one_made_up(tmp_path: Path) -> None:
    files = write_series(tmp_path, VALUES, GRID)
    for file in files:
        uid = str(dcmread(file).SOPInstanceUID).encode()
        file.write_bytes(file.read_bytes().replace(uid, b"x" * len(uid)))
    series = choose(scan(files, "ct"))[0]
    assert prove(to_bytes(seg_of(series)), series, MASK).frames


def one_voxel(seg: Dataset) -> None:
    data = bytearray(seg.PixelData)
    data[len(data) // 2] ^= 1
    seg.PixelData = bytes(data)


def moved_voxel(seg: Dataset) -> None:
    """Same count: a set voxel of the first frame goes elsewhere in it."""
    size = seg.Rows * seg.Columns
    bits = np.unpackbits(np.frombuffer(seg.PixelData, np.uint8), bitorder="little")
    frame = bits[:size]
    frame[np.flatnonzero(frame)[0]] = 0
    frame[-1] = 1
    seg.PixelData = np.packbits(bits, bitorder="little").tobytes()


def shifted(seg: Dataset) -> None:
    for frame in seg.PerFrameFunctionalGroupsSequence:
        frame.PlanePositionSequence[0].ImagePositionPatient[0] += 1


def off_the_slices(seg: Dataset) -> None:
    frames = seg.PerFrameFunctionalGroupsSequence
    frames[0].PlanePositionSequence[0].ImagePositionPatient[2] += 0.005


def swapped_places(seg: Dataset) -> None:
    one, two = seg.PerFrameFunctionalGroupsSequence[:2]
    one.PlanePositionSequence, two.PlanePositionSequence = (
        two.PlanePositionSequence,
        one.PlanePositionSequence,
    )


def swapped_sources(seg: Dataset) -> None:
    one, two = seg.PerFrameFunctionalGroupsSequence[:2]
    one.DerivationImageSequence, two.DerivationImageSequence = (
        two.DerivationImageSequence,
        one.DerivationImageSequence,
    )


def other_spacing(seg: Dataset) -> None:
    seg.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].PixelSpacing = [1.5, 1.01]


def flipped(seg: Dataset) -> None:
    orientation = seg.SharedFunctionalGroupsSequence[0].PlaneOrientationSequence[0]
    orientation.ImageOrientationPatient = [1, 0, 0, 0, -1, 0]


def other_segment(seg: Dataset) -> None:
    frame = seg.PerFrameFunctionalGroupsSequence[0]
    frame.SegmentIdentificationSequence[0].ReferencedSegmentNumber = 2


SPOILERS = (
    one_voxel,
    moved_voxel,
    shifted,
    off_the_slices,
    swapped_places,
    swapped_sources,
    other_spacing,
    flipped,
    other_segment,
)


@pytest.mark.parametrize("spoil", SPOILERS)
def test_a_wrong_seg_is_noticed(tmp_path: Path, spoil: Callable[[Dataset], None]) -> None:
    series = series_of(tmp_path)
    seg = seg_of(series)
    spoil(seg)
    with pytest.raises(SegMismatchError) as caught:
        prove(to_bytes(seg), series, MASK)
    assert caught.value.code == "seg_mismatch"
