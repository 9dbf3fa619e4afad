"""The report of lines: on the right slice, at the right place, and readable by others."""

from pathlib import Path

import highdicom
import numpy as np
import pytest
from dicom_peers import dciodvfy_errors
from dicom_phantoms import ORIENTATIONS, Grid, Recipe, body, labels, write_enhanced, write_series
from numpy.typing import NDArray
from pydicom import dcmread
from pydicom.dataset import Dataset

from model.measure import Lesion, measure
from model.spec import LIVER_LABEL, TUMOUR_LABEL
from service.dicom.pixels import LoadedSeries, load
from service.dicom.seg import Algorithm, build_seg, to_bytes
from service.dicom.segread import read_seg
from service.dicom.series import choose, scan
from service.dicom.sr import MAX_LESIONS, lesion_tracking_uid
from service.dicom.sr_viewer import LENGTH_TOOL, build_sr_viewer

LABELS = (LIVER_LABEL, TUMOUR_LABEL)
ALGORITHM = Algorithm("A-QCF-Net small", "1.0")
GRID = Grid()
VALUES = body(GRID)


def report(
    case: LoadedSeries, mask: NDArray[np.uint8], path: Path
) -> tuple[Dataset, tuple[Lesion, ...]]:
    """The document, on disk and valid, and the lesions it tells of."""
    content = read_seg(to_bytes(build_seg(case.series, mask, LABELS, ALGORITHM, "k")), case.native)
    lesions = measure(mask, case.volume).lesions
    dataset = build_sr_viewer(case.series, content, lesions, "k")
    assert dataset is not None
    path.write_bytes(to_bytes(dataset))
    assert not dciodvfy_errors(path)
    return dcmread(path), lesions


def groups(document: Dataset) -> list[Dataset]:
    """Measurement groups, as a viewer walks the tree."""
    container = next(i for i in document.ContentSequence if _named(i) == "Imaging Measurements")
    return list(container.ContentSequence)


def _named(item: Dataset) -> str:
    return str(item.ConceptNameCodeSequence[0].CodeMeaning)


def _child(item: Dataset, value_type: str) -> Dataset:
    return next(i for i in item.ContentSequence if i.ValueType == value_type)


@pytest.mark.parametrize("descending", [False, True])
@pytest.mark.parametrize("name", ORIENTATIONS)
def test_each_line_lies_on_its_lesion(tmp_path: Path, name: str, descending: bool) -> None:
    grid = Grid((16, 44, 52), (2.5, 1.25, 0.75), ORIENTATIONS[name], (11.0, -7.0, 30.0))
    values = body(Grid(grid.shape, grid.spacing, grid.orientation))
    paths = write_series(tmp_path / "in", values, grid, Recipe(descending=descending))
    case = load(choose(scan(paths, "ct"))[0])
    document, lesions = report(case, labels(case.volume.array), tmp_path / "sr.dcm")
    images = {image.SOPInstanceUID: image for image in map(dcmread, paths)}
    (group,) = groups(document)
    number = _child(group, "NUM")
    line = _child(number, "SCOORD")
    assert (line.GraphicType, line.RelationshipType) == ("POLYLINE", "INFERRED FROM")
    image = images[_child(line, "IMAGE").ReferencedSOPSequence[0].ReferencedSOPInstanceUID]
    ends = _in_patient(np.array(line.GraphicData, float).reshape(-1, 2), image)
    wanted = np.array(lesions[0].long_axis_ends_mm)
    assert np.abs(ends - wanted).max() < 1e-3
    length = float(number.MeasuredValueSequence[0].NumericValue)
    assert length == pytest.approx(np.linalg.norm(ends[1] - ends[0]), abs=2e-3)
    for column, row in np.floor(np.array(line.GraphicData, float).reshape(-1, 2)).astype(int):
        assert image.pixel_array[row, column] == 40 + 1024


def _in_patient(points: NDArray[np.float64], image: Dataset) -> NDArray[np.float64]:
    """PS3.3 C.18.6.1.1: (0.5, 0.5) is the centre of the first pixel."""
    cosines = np.array(image.ImageOrientationPatient, float)
    between_rows, between_columns = map(float, image.PixelSpacing)
    columns, rows = (points - 0.5).T
    placed: NDArray[np.float64] = (
        np.array(image.ImagePositionPatient, float)
        + np.outer(columns * between_columns, cosines[:3])
        + np.outer(rows * between_rows, cosines[3:])
    )
    return placed


def test_what_the_viewer_looks_for(tmp_path: Path) -> None:
    case = load(choose(scan(write_series(tmp_path / "in", VALUES, GRID), "ct"))[0])
    mask = labels(VALUES)
    mask[1, 5:9, 5:9] = 2
    document, lesions = report(case, mask, tmp_path / "sr.dcm")
    source = dcmread(case.series.instances[0].file.path)
    assert document.SOPClassUID == "1.2.840.10008.5.1.4.1.1.88.33"
    assert document.StudyInstanceUID == source.StudyInstanceUID
    found = groups(document)
    assert len(found) == len(lesions) == 2
    for group, lesion in zip(found, lesions, strict=True):
        texts = {_named(i): i for i in group.ContentSequence if "ConceptNameCodeSequence" in i}
        assert texts["Tracking Identifier"].TextValue == LENGTH_TOOL
        uid = texts["Tracking Unique Identifier"].UID
        assert uid == lesion_tracking_uid("k", lesion.number)
        numbers = [i for i in group.ContentSequence if i.ValueType == "NUM"]
        assert [i.ValueType for n in numbers for i in n.ContentSequence] == ["SCOORD"]
    evidence = document.CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence[0]
    named = {item.ReferencedSOPInstanceUID for item in evidence.ReferencedSOPSequence}
    drawn = {
        _child(_child(_child(g, "NUM"), "SCOORD"), "IMAGE")
        .ReferencedSOPSequence[0]
        .ReferencedSOPInstanceUID
        for g in found
    }
    assert evidence.SeriesInstanceUID == source.SeriesInstanceUID
    assert named == drawn


def test_highdicom_reads_it(tmp_path: Path) -> None:
    case = load(choose(scan(write_series(tmp_path / "in", VALUES, GRID), "ct"))[0])
    _, lesions = report(case, labels(VALUES), tmp_path / "sr.dcm")
    document = highdicom.sr.srread(tmp_path / "sr.dcm")
    (group,) = document.content.get_image_measurement_groups()
    assert group.tracking_identifier == LENGTH_TOOL
    (length,) = group.get_measurements()
    assert length.value == pytest.approx(lesions[0].long_axis_mm, abs=1e-3)


def test_enhanced_sources_are_named_by_frame(tmp_path: Path) -> None:
    path = write_enhanced(tmp_path / "e", [VALUES + 1, VALUES], GRID)
    case = load(scan([path], "mr").series[1])
    document, lesions = report(case, labels(VALUES), tmp_path / "sr.dcm")
    line = _child(_child(groups(document)[0], "NUM"), "SCOORD")
    reference = _child(line, "IMAGE").ReferencedSOPSequence[0]
    source = dcmread(path)
    assert reference.ReferencedSOPClassUID == source.SOPClassUID
    frame = source.PerFrameFunctionalGroupsSequence[int(reference.ReferencedFrameNumber) - 1]
    height = float(frame.PlanePositionSequence[0].ImagePositionPatient[2])
    assert height == pytest.approx(lesions[0].long_axis_ends_mm[0][2])


def test_nothing_to_draw_is_no_report(tmp_path: Path) -> None:
    case = load(choose(scan(write_series(tmp_path / "in", VALUES, GRID), "ct"))[0])
    voxel = np.minimum(labels(VALUES), 1)
    voxel[3, 20, 20] = 2
    for mask in (np.minimum(labels(VALUES), 1), np.zeros_like(voxel), voxel):
        seg = to_bytes(build_seg(case.series, mask, LABELS, ALGORITHM, "k"))
        lesions = measure(mask, case.volume).lesions
        assert build_sr_viewer(case.series, read_seg(seg, case.native), lesions, "k") is None


def test_many_lesions_are_cut_and_the_file_is_always_the_same(tmp_path: Path) -> None:
    case = load(choose(scan(write_series(tmp_path / "in", VALUES, GRID), "ct"))[0])
    mask = np.ones_like(labels(VALUES))
    mask[::3, ::3, ::4], mask[::3, ::3, 1::4] = 2, 2
    document, lesions = report(case, mask, tmp_path / "one.dcm")
    assert len(lesions) > MAX_LESIONS
    assert len(groups(document)) == MAX_LESIONS
    content = read_seg(to_bytes(build_seg(case.series, mask, LABELS, ALGORITHM, "k")), case.native)
    uids = [
        {str(e.value) for e in built.iterall() if e.VR == "UI"}
        for built in (build_sr_viewer(case.series, content, lesions, "k") for _ in range(2))
        if built is not None
    ]
    assert uids[0] == uids[1]
