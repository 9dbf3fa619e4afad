"""The SEG as LABELMAP and deflated: the same rules, the same proof, the same mask."""

from pathlib import Path

import highdicom
import numpy as np
import pytest
from dicom_peers import dciodvfy_errors, dcmqi_labelmap, dcmqi_mask, inflated
from dicom_phantoms import ORIENTATIONS, Grid, Recipe, body, labels, write_enhanced, write_series
from numpy.typing import NDArray
from pydicom import dcmread
from pydicom.dataset import Dataset

from model.spec import LIVER_LABEL, TUMOUR_LABEL
from service.dicom.errors import SegMismatchError
from service.dicom.pixels import LoadedSeries, load
from service.dicom.proof import prove
from service.dicom.seg import Algorithm, build_seg, to_bytes
from service.dicom.segread import read_seg
from service.dicom.series import choose, scan

LABELS = (LIVER_LABEL, TUMOUR_LABEL)
ALGORITHM = Algorithm("A-QCF-Net small", "1.0")
GRID = Grid()
VALUES = body(GRID)
ASCENDING = Recipe()
MASK = labels(VALUES)


def loaded(folder: Path, grid: Grid = GRID, recipe: Recipe = ASCENDING) -> LoadedSeries:
    return load(choose(scan(write_series(folder / "in", body(grid), grid, recipe), "ct"))[0])


def labelmap(case: LoadedSeries, mask: NDArray[np.uint8], path: Path) -> Dataset:
    """The LABELMAP, proved and on disk."""
    path.write_bytes(
        to_bytes(build_seg(case.series, mask, LABELS, ALGORITHM, "k", None, "LABELMAP"))
    )
    prove(path, case.series, mask)
    return dcmread(path)


@pytest.mark.parametrize("name", ORIENTATIONS)
def test_a_labelmap_lands_in_the_same_place(tmp_path: Path, name: str) -> None:
    grid = Grid((16, 44, 52), (2.5, 1.25, 0.75), ORIENTATIONS[name])
    case = loaded(tmp_path, grid)
    mask = labels(case.volume.array)
    path = tmp_path / "labelmap.dcm"
    labelmap(case, mask, path)
    assert not dciodvfy_errors(path)
    assert np.array_equal(dcmqi_labelmap(path, tmp_path / "out", case.native), mask)


def test_a_labelmap_follows_the_rules(tmp_path: Path) -> None:
    case = loaded(tmp_path)
    seg = labelmap(case, MASK, tmp_path / "labelmap.dcm")
    binary = build_seg(case.series, MASK, LABELS, ALGORITHM, "k")
    assert seg.SOPClassUID == "1.2.840.10008.5.1.4.1.1.66.7"
    assert seg.SegmentationType == "LABELMAP"
    assert {seg.SOPInstanceUID, seg.SeriesInstanceUID}.isdisjoint(
        {binary.SOPInstanceUID, binary.SeriesInstanceUID}
    )
    assert [int(item.SegmentNumber) for item in seg.SegmentSequence] == [1, 2, 0]
    for item, label in zip(seg.SegmentSequence[:2], LABELS, strict=True):
        assert item.RecommendedDisplayCIELabValue == list(label.cielab)
        assert item.TrackingUID
    measures = seg.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
    assert measures.SpacingBetweenSlices == 5.0
    assert seg.NumberOfFrames == int(MASK.any(axis=(1, 2)).sum())
    places = {p.file.sop_instance_uid: p.position for p in case.series.instances}
    for frame in seg.PerFrameFunctionalGroupsSequence:
        source = frame.DerivationImageSequence[0].SourceImageSequence[0]
        place = frame.PlanePositionSequence[0].ImagePositionPatient
        assert places[source.ReferencedSOPInstanceUID] == pytest.approx(tuple(place), abs=1e-3)


def test_highdicom_reads_the_labelmap(tmp_path: Path) -> None:
    case = loaded(tmp_path)
    labelmap(case, MASK, tmp_path / "labelmap.dcm")
    read = highdicom.seg.segread(tmp_path / "labelmap.dcm")
    volume = read.get_volume(combine_segments=True).match_geometry(
        highdicom.Volume(
            np.zeros(MASK.shape), affine=case.native.affine[:, [2, 1, 0, 3]],
            coordinate_system="PATIENT", frame_of_reference_uid=read.FrameOfReferenceUID,
        )
    )  # fmt: skip
    assert np.array_equal(volume.array, MASK)


@pytest.mark.parametrize("name", ["empty", "one voxel", "no tumour", "a gap"])
def test_odd_masks_as_labelmaps(tmp_path: Path, name: str) -> None:
    case = loaded(tmp_path)
    mask = np.zeros_like(MASK)
    if name == "one voxel":
        mask[0, 0, 0] = 2
    if name == "no tumour":
        mask = np.minimum(MASK, 1)
    if name == "a gap":
        mask[1, 4:9, 5:9], mask[6, 4:9, 5:9] = 1, 2
    seg = labelmap(case, mask, tmp_path / "labelmap.dcm")
    assert seg.NumberOfFrames == max(2, int(mask.any(axis=(1, 2)).sum()))
    assert not dciodvfy_errors(tmp_path / "labelmap.dcm")
    assert np.array_equal(
        dcmqi_labelmap(tmp_path / "labelmap.dcm", tmp_path / "out", case.native), mask
    )


def test_enhanced_sources_of_a_labelmap(tmp_path: Path) -> None:
    path = write_enhanced(tmp_path / "e", [VALUES + 1, VALUES], GRID)
    case = load(scan([path], "mr").series[1])
    seg = labelmap(case, MASK, tmp_path / "labelmap.dcm")
    assert not dciodvfy_errors(tmp_path / "labelmap.dcm")
    frames = [
        item.DerivationImageSequence[0].SourceImageSequence[0].ReferencedFrameNumber
        for item in seg.PerFrameFunctionalGroupsSequence
    ]
    assert len(set(frames)) == seg.NumberOfFrames


@pytest.mark.parametrize("kind", ["BINARY", "LABELMAP"])
def test_deflated(tmp_path: Path, kind: str) -> None:
    case = loaded(tmp_path)
    dataset = build_seg(case.series, MASK, LABELS, ALGORITHM, "k", None, kind)  # type: ignore[arg-type]
    plain, packed = to_bytes(dataset), to_bytes(dataset, deflate=True)
    (tmp_path / "deflated.dcm").write_bytes(packed)
    assert len(packed) * 3 < len(plain)
    prove(packed, case.series, MASK)
    read = dcmread(tmp_path / "deflated.dcm")
    assert read.file_meta.TransferSyntaxUID == "1.2.840.10008.1.2.1.99"
    assert read.SOPInstanceUID == dataset.SOPInstanceUID
    assert not dciodvfy_errors(inflated(tmp_path / "deflated.dcm"))
    reader = dcmqi_mask if kind == "BINARY" else dcmqi_labelmap
    theirs = reader(tmp_path / "deflated.dcm", tmp_path / "out", case.native)
    assert np.array_equal(theirs, MASK)


@pytest.mark.parametrize("kind", ["BINARY", "LABELMAP"])
def test_a_seg_gives_back_mask_labels_and_algorithm(tmp_path: Path, kind: str) -> None:
    case = loaded(tmp_path, recipe=Recipe(descending=True))
    dataset = build_seg(case.series, MASK, LABELS, ALGORITHM, "k", None, kind)  # type: ignore[arg-type]
    content = read_seg(to_bytes(dataset), case.native)
    assert np.array_equal(content.mask, MASK)
    assert (content.labels, content.algorithm) == (LABELS, ALGORITHM)


def test_a_seg_of_another_series_is_not_read(tmp_path: Path) -> None:
    seg = to_bytes(build_seg(loaded(tmp_path).series, MASK, LABELS, ALGORITHM, "k"))
    others = [Grid(centre=(0.0, 0.0, 2.0)), Grid((8, 40, 50))]
    for number, grid in enumerate(others):
        with pytest.raises(SegMismatchError):
            read_seg(seg, loaded(tmp_path / str(number), grid).native)


def _wrong_value(dataset: Dataset) -> None:
    dataset.PixelData = dataset.PixelData.replace(b"\x02", b"\x03")


def _lost_voxel(dataset: Dataset) -> None:
    at = dataset.PixelData.index(b"\x01")
    dataset.PixelData = dataset.PixelData[:at] + b"\x00" + dataset.PixelData[at + 1 :]


def _swapped_frames(dataset: Dataset) -> None:
    one, two = dataset.PerFrameFunctionalGroupsSequence[1:3]
    one.PlanePositionSequence, two.PlanePositionSequence = (
        two.PlanePositionSequence,
        one.PlanePositionSequence,
    )


def _other_source(dataset: Dataset) -> None:
    one, two = dataset.PerFrameFunctionalGroupsSequence[1:3]
    one.DerivationImageSequence = two.DerivationImageSequence


@pytest.mark.parametrize("damage", [_wrong_value, _lost_voxel, _swapped_frames, _other_source])
def test_the_proof_sees_damage_in_a_labelmap(tmp_path: Path, damage: object) -> None:
    case = loaded(tmp_path)
    dataset = build_seg(case.series, MASK, LABELS, ALGORITHM, "k", None, "LABELMAP")
    damage(dataset)  # type: ignore[operator]
    with pytest.raises(SegMismatchError):
        prove(to_bytes(dataset), case.series, MASK)
