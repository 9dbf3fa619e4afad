"""A mask as DICOM-SEG, judged by readers that others wrote."""

import itertools
from pathlib import Path

import nibabel
import numpy as np
import pytest
from dicom_peers import Real, dciodvfy_errors, dcmqi_mask
from dicom_phantoms import (
    ORIENTATIONS,
    Grid,
    Recipe,
    body,
    labels,
    write_enhanced,
    write_series,
)
from numpy.typing import NDArray
from pydicom import dcmread
from pydicom.dataset import Dataset

from model.spec import LIVER_LABEL, TUMOUR_LABEL
from service.dicom.pixels import LoadedSeries, load
from service.dicom.proof import prove
from service.dicom.seg import Algorithm, build_seg, to_bytes
from service.dicom.series import choose, scan

LABELS = (LIVER_LABEL, TUMOUR_LABEL)
ALGORITHM = Algorithm("A-QCF-Net small", "1.0")
GRID = Grid()
VALUES = body(GRID)


def loaded(paths: list[Path], modality: str = "ct") -> LoadedSeries:
    return load(choose(scan(paths, modality))[0])  # type: ignore[arg-type]


def written(case: LoadedSeries, mask: NDArray[np.uint8], path: Path) -> Dataset:
    """The SEG, proved and on disk."""
    dataset = build_seg(case.series, mask, LABELS, ALGORITHM, "key")
    path.write_bytes(to_bytes(dataset))
    prove(path, case.series, mask)
    return dcmread(path)


def centroid(points: NDArray[np.float64], inside: NDArray[np.bool_]) -> NDArray[np.float64]:
    middle: NDArray[np.float64] = points[inside].mean(axis=0)
    return middle


@pytest.mark.parametrize("descending", [False, True])
@pytest.mark.parametrize("name", ORIENTATIONS)
def test_the_mask_lands_in_the_same_physical_place(
    tmp_path: Path, name: str, descending: bool
) -> None:
    grid = Grid((16, 44, 52), (2.5, 1.25, 0.75), ORIENTATIONS[name], (11.0, -7.0, 30.0))
    moved = Grid(grid.shape, grid.spacing, grid.orientation)
    values = body(moved)
    truth = centroid(grid.world(), values != 0)
    paths = write_series(tmp_path / "in", values, grid, Recipe(descending=descending))
    case = loaded(paths)
    mask = case.mask_to_native(labels(case.volume.array))
    dataset = written(case, mask, tmp_path / "seg.dcm")
    theirs = dcmqi_mask(tmp_path / "seg.dcm", tmp_path / "out", case.native)
    assert np.array_equal(theirs, mask)
    z, y, x = np.nonzero(mask)
    found = (case.native.affine @ np.stack([x, y, z, np.ones_like(x)])).mean(axis=1)[:3]
    assert np.abs(found - truth).max() < 1e-3
    assert dataset.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].get(
        "SpacingBetweenSlices"
    ) == pytest.approx(2.5)
    assert not dciodvfy_errors(tmp_path / "seg.dcm")


def test_the_rules(tmp_path: Path) -> None:
    case = loaded(write_series(tmp_path / "in", VALUES, GRID))
    mask = labels(VALUES)
    seg = written(case, mask, tmp_path / "seg.dcm")
    source = dcmread(case.series.instances[0].file.path)
    assert seg.SOPClassUID == "1.2.840.10008.5.1.4.1.1.66.4"
    assert seg.file_meta.TransferSyntaxUID == "1.2.840.10008.1.2.1"
    assert seg.SegmentationType == "BINARY"
    assert seg.SegmentsOverlap == "NO"
    assert (seg.Rows, seg.Columns) == (source.Rows, source.Columns)
    assert seg.StudyInstanceUID == source.StudyInstanceUID
    assert seg.SeriesInstanceUID != source.SeriesInstanceUID
    assert seg.PatientName == source.PatientName
    assert seg.FrameOfReferenceUID == source.FrameOfReferenceUID
    referenced = seg.ReferencedSeriesSequence[0]
    assert referenced.SeriesInstanceUID == source.SeriesInstanceUID
    held = [int(n) for n in np.flatnonzero(mask.any(axis=(1, 2)))]
    assert len(referenced.ReferencedInstanceSequence) == held[-1] - held[0] + 1
    expected = sum(int((mask[i] == v).any()) for i in held for v in (1, 2))
    assert seg.NumberOfFrames == expected
    for segment, label in zip(seg.SegmentSequence, LABELS, strict=True):
        assert segment.SegmentLabel == label.name
        assert segment.RecommendedDisplayCIELabValue == list(label.cielab)
        assert segment.SegmentedPropertyTypeCodeSequence[0].CodeValue == label.type.value
        assert segment.SegmentedPropertyCategoryCodeSequence[0].CodeValue == label.category.value
        assert segment.SegmentAlgorithmType == "AUTOMATIC"
        algorithm = segment.SegmentationAlgorithmIdentificationSequence[0]
        assert (algorithm.AlgorithmName, algorithm.AlgorithmVersion) == ("A-QCF-Net small", "1.0")
        assert algorithm.AlgorithmFamilyCodeSequence[0].CodeValue == "123110"
        assert segment.TrackingUID.startswith("2.25.")
        assert segment.TrackingID


def test_every_frame_names_its_exact_slice(tmp_path: Path) -> None:
    case = loaded(write_series(tmp_path / "in", VALUES, GRID, Recipe(descending=True)))
    seg = written(case, labels(VALUES), tmp_path / "seg.dcm")
    places = {
        dcmread(plane.file.path).SOPInstanceUID: plane.position for plane in case.series.instances
    }
    for frame in seg.PerFrameFunctionalGroupsSequence:
        source = frame.DerivationImageSequence[0].SourceImageSequence[0]
        place = frame.PlanePositionSequence[0].ImagePositionPatient
        assert places[source.ReferencedSOPInstanceUID] == pytest.approx(tuple(place), abs=1e-3)
        assert "ReferencedFrameNumber" not in source


def test_the_same_key_writes_the_same_uids(tmp_path: Path) -> None:
    case = loaded(write_series(tmp_path / "in", VALUES, GRID))
    mask = labels(VALUES)
    one, two, other = (
        build_seg(case.series, mask, LABELS, ALGORITHM, key) for key in ("k", "k", "l")
    )
    uids = [
        {str(e.value) for e in dataset.iterall() if e.VR == "UI"} for dataset in (one, two, other)
    ]
    assert uids[0] == uids[1]
    assert one.SOPInstanceUID != other.SOPInstanceUID
    assert one.SeriesInstanceUID != other.SeriesInstanceUID


def masks() -> dict[str, NDArray[np.uint8]]:
    full = labels(VALUES)
    empty = np.zeros_like(full)
    one_slice, last_slice, gap, voxel = (empty.copy() for _ in range(4))
    one_slice[3] = full[3]
    last_slice[7, 10:14, 10:20] = 1
    gap[1, 4:9, 5:9], gap[6, 4:9, 5:9], gap[6, 5, 6] = 1, 1, 2
    voxel[0, 0, 0] = 2
    healthy = np.minimum(full, 1)
    return {
        "empty": empty,
        "no tumour": healthy,
        "tumour alone": np.where(full == 2, 2, 0).astype(np.uint8),
        "one slice": one_slice,
        "last slice": last_slice,
        "a gap": gap,
        "one voxel": voxel,
        "everything": np.ones_like(full),
    }


@pytest.mark.parametrize("name", masks())
def test_odd_masks_are_valid_and_read_by_others(tmp_path: Path, name: str) -> None:
    case = loaded(write_series(tmp_path / "in", VALUES, GRID))
    mask = masks()[name]
    seg = written(case, mask, tmp_path / "seg.dcm")
    assert [int(s.SegmentNumber) for s in seg.SegmentSequence] == [1, 2]
    assert not dciodvfy_errors(tmp_path / "seg.dcm")
    assert np.array_equal(dcmqi_mask(tmp_path / "seg.dcm", tmp_path / "out", case.native), mask)


def test_a_missing_slice_keeps_true_positions(tmp_path: Path) -> None:
    recipe = Recipe(skip=frozenset({3}))
    case = loaded(write_series(tmp_path / "in", VALUES, GRID, recipe))
    mask = case.mask_to_native(labels(case.volume.array))
    seg = written(case, mask, tmp_path / "seg.dcm")
    assert not dciodvfy_errors(tmp_path / "seg.dcm")
    places = {
        round(float(f.PlanePositionSequence[0].ImagePositionPatient[2]), 3)
        for f in seg.PerFrameFunctionalGroupsSequence
    }
    assert places <= {round(float(p[2]), 3) for p in case.native.positions}


def test_enhanced_sources_are_referred_to_by_frame(tmp_path: Path) -> None:
    path = write_enhanced(tmp_path / "e", [VALUES + 1, VALUES], GRID)
    found = scan([path], "mr")
    case = load(found.series[1])
    mask = labels(VALUES)
    seg = written(case, mask, tmp_path / "seg.dcm")
    assert not dciodvfy_errors(tmp_path / "seg.dcm")
    assert np.array_equal(dcmqi_mask(tmp_path / "seg.dcm", tmp_path / "out", case.native), mask)
    instances = seg.ReferencedSeriesSequence[0].ReferencedInstanceSequence
    source = dcmread(path)
    assert [i.ReferencedSOPInstanceUID for i in instances] == [source.SOPInstanceUID]
    assert instances[0].ReferencedSOPClassUID == source.SOPClassUID
    for frame in seg.PerFrameFunctionalGroupsSequence:
        item = frame.DerivationImageSequence[0].SourceImageSequence[0]
        place = source.PerFrameFunctionalGroupsSequence[item.ReferencedFrameNumber - 1]
        assert (
            place.PlanePositionSequence[0].ImagePositionPatient
            == frame.PlanePositionSequence[0].ImagePositionPatient
        )
        assert place.FrameContentSequence[0].TemporalPositionIndex == 2


def real_mask(case: LoadedSeries, label: Path) -> NDArray[np.uint8]:
    """A NIfTI label of the same grid, its axes flipped as the series' axes run."""
    image = nibabel.load(label)
    values = np.asarray(image.dataobj).astype(np.uint8).transpose(2, 1, 0)
    to_lps = np.diag([-1, -1, 1, 1]) @ image.affine
    index = np.linalg.inv(to_lps) @ case.volume.affine
    assert np.allclose(np.abs(index[:3, :3]), np.eye(3), atol=1e-2)
    flips = tuple(slice(None, None, int(np.sign(index[axis, axis]))) for axis in (2, 1, 0))
    flipped: NDArray[np.uint8] = np.ascontiguousarray(values[flips])
    assert flipped.shape == case.volume.shape
    return flipped


def test_real_ct(real: Real, data_dir: Path, tmp_path: Path) -> None:
    case = loaded(real("ct_msd_liver0"))
    mask = real_mask(case, data_dir / "ct" / "lits_000_liveronly" / "label.nii.gz")
    assert 60 < case.volume.array[mask == 1].mean() < 140
    written(case, mask, tmp_path / "seg.dcm")
    assert not dciodvfy_errors(tmp_path / "seg.dcm")
    assert np.array_equal(dcmqi_mask(tmp_path / "seg.dcm", tmp_path / "out", case.native), mask)


def test_real_mr(real: Real, data_dir: Path, tmp_path: Path) -> None:
    case = loaded(real("mr_chaos_t1dual_10"), "mr")
    mask = real_mask(case, data_dir / "mr" / "chaos_t1_inphase_10" / "label.nii.gz")
    written(case, mask, tmp_path / "seg.dcm")
    assert not dciodvfy_errors(tmp_path / "seg.dcm")
    assert np.array_equal(dcmqi_mask(tmp_path / "seg.dcm", tmp_path / "out", case.native), mask)


OTHERS = [
    ("ct_totalsegmentator_20slices_j2k", "ct"),
    ("edge_dicom2nifti_compressed", "mr"),
    ("edge_dicom2nifti_failing", "ct"),
    ("edge_enhanced_multiframe", "mr"),
    ("seg_by_others_dcmqi", "ct"),
]


@pytest.mark.parametrize(("name", "modality"), OTHERS)
def test_every_usable_real_series_gets_a_valid_seg(
    real: Real, tmp_path: Path, name: str, modality: str
) -> None:
    usable = [s for s in scan(real(name), modality).series if s.code is None]  # type: ignore[arg-type]
    for number, series in enumerate(usable):
        case = load(series)
        mask = np.zeros((case.native.slices, case.native.rows, case.native.columns), np.uint8)
        mask[:2, 3:12, 4:9], mask[1, 5:8, 5:7] = 1, 2
        path = tmp_path / f"{number}.dcm"
        written(case, mask, path)
        assert not dciodvfy_errors(path)
        if case.native.uniform and not case.native.tilt_degrees:  # dcmqi has no shear
            theirs = dcmqi_mask(path, tmp_path / str(number), case.native)
            assert np.array_equal(theirs, mask)


def test_orientations_are_eight_and_differ() -> None:
    assert len(ORIENTATIONS) == 8
    for one, other in itertools.combinations(ORIENTATIONS.values(), 2):
        assert np.abs(np.subtract(one, other)).max() > 0.1
