"""Contours: filled again by others' code, they are the mask, at its place."""

from pathlib import Path

import numpy as np
import pytest
from dicom_peers import Real, dciodvfy_errors
from dicom_phantoms import ORIENTATIONS, Grid, Recipe, body, labels, write_enhanced, write_series
from hypothesis import given, settings
from hypothesis.extra.numpy import arrays
from matplotlib.path import Path as Polygon
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from pydicom import dcmread
from pydicom.dataset import Dataset

from model.spec import LIVER_LABEL, TUMOUR_LABEL
from service.dicom.contours import outlines
from service.dicom.geometry import NativeGrid
from service.dicom.pixels import LoadedSeries, load
from service.dicom.rtstruct import build_rtstruct
from service.dicom.seg import Algorithm, build_seg, to_bytes
from service.dicom.segread import read_seg
from service.dicom.series import choose, scan

LABELS = (LIVER_LABEL, TUMOUR_LABEL)
ALGORITHM = Algorithm("A-QCF-Net small", "1.0")
GRID = Grid()
VALUES = body(GRID)


def written(case: LoadedSeries, mask: NDArray[np.uint8], path: Path) -> Dataset:
    """The structure set, on disk and valid."""
    seg = to_bytes(build_seg(case.series, mask, LABELS, ALGORITHM, "key"))
    content = read_seg(seg, case.native)
    path.write_bytes(to_bytes(build_rtstruct(case.series, content, "key")))
    assert not dciodvfy_errors(path)
    return dcmread(path)


def filled(dataset: Dataset, number: int, sources: list[Path]) -> NDArray[np.bool_]:
    """What a planning system makes of a ROI: each contour put onto the image that it names, by
    that image's own geometry, and filled by voxel centres, even-odd."""
    images = {image.SOPInstanceUID: image for image in map(dcmread, sources)}
    order = sorted(images, key=lambda uid: _height(images[uid]))
    first = images[order[0]]
    mask = np.zeros((len(order), first.Rows, first.Columns), bool)
    roi = next(r for r in dataset.ROIContourSequence if r.ReferencedROINumber == number)
    for contour in roi.get("ContourSequence", []):
        image = images[contour.ContourImageSequence[0].ReferencedSOPInstanceUID]
        points = np.array(contour.ContourData, float).reshape(-1, 3)
        index = order.index(image.SOPInstanceUID)
        mask[index] ^= _inside(_on_image(points, image), image)
    return mask


def _height(image: Dataset) -> float:
    cosines = np.array(image.ImageOrientationPatient, float)
    normal = np.cross(cosines[:3], cosines[3:])
    return float(normal @ np.array(image.ImagePositionPatient, float))


def _on_image(points: NDArray[np.float64], image: Dataset) -> NDArray[np.float64]:
    cosines = np.array(image.ImageOrientationPatient, float)
    offset = points - np.array(image.ImagePositionPatient, float)
    assert np.abs(offset @ np.cross(cosines[:3], cosines[3:])).max() < 0.01
    between_rows, between_columns = map(float, image.PixelSpacing)
    return np.stack(
        [offset @ cosines[:3] / between_columns, offset @ cosines[3:] / between_rows], 1
    )


def _inside(ring: NDArray[np.float64], image: Dataset) -> NDArray[np.bool_]:
    found = np.zeros((image.Rows, image.Columns), bool)
    left, top = np.floor(ring.min(axis=0)).astype(int).clip(0)
    right, bottom = np.ceil(ring.max(axis=0)).astype(int) + 1
    box = found[top:bottom, left:right]
    rows, columns = np.indices(box.shape)
    centres = np.stack([columns.ravel() + left, rows.ravel() + top], 1)
    inside = Polygon(np.vstack([ring, ring[:1]]), closed=True).contains_points(centres)
    box[:] = inside.reshape(box.shape)
    return found


def dice(one: NDArray[np.bool_], other: NDArray[np.bool_]) -> float:
    return float(2 * (one & other).sum() / (one.sum() + other.sum()))


def centroid(grid: NativeGrid, inside: NDArray[np.bool_]) -> NDArray[np.float64]:
    z, y, x = np.nonzero(inside)
    points: NDArray[np.float64] = (grid.affine @ np.stack([x, y, z, np.ones_like(x)]))[:3]
    middle: NDArray[np.float64] = points.mean(axis=1)
    return middle


@pytest.mark.parametrize("descending", [False, True])
@pytest.mark.parametrize("name", ORIENTATIONS)
def test_contours_fill_to_the_mask_at_its_place(
    tmp_path: Path, name: str, descending: bool
) -> None:
    grid = Grid((16, 44, 52), (2.5, 1.25, 0.75), ORIENTATIONS[name], (11.0, -7.0, 30.0))
    values = body(Grid(grid.shape, grid.spacing, grid.orientation))
    paths = write_series(tmp_path / "in", values, grid, Recipe(descending=descending))
    case = load(choose(scan(paths, "ct"))[0])
    mask = labels(case.volume.array)
    dataset = written(case, mask, tmp_path / "rtstruct.dcm")
    for number, truth in ((1, mask == 1), (2, mask == 2), (3, mask != 0)):
        found = filled(dataset, number, paths)
        assert dice(found, truth) >= 0.999
        off = centroid(case.native, found) - centroid(case.native, truth)
        assert np.linalg.norm(off) < 0.05
    truth_mm = grid.world()[values != 0].mean(axis=0)
    assert np.linalg.norm(centroid(case.native, filled(dataset, 3, paths)) - truth_mm) < 0.05


def test_the_structure_set(tmp_path: Path) -> None:
    paths = write_series(tmp_path / "in", VALUES, GRID)
    case = load(choose(scan(paths, "ct"))[0])
    dataset = written(case, labels(VALUES), tmp_path / "rtstruct.dcm")
    source = dcmread(paths[0])
    assert dataset.SOPClassUID == "1.2.840.10008.5.1.4.1.1.481.3"
    assert dataset.file_meta.TransferSyntaxUID == "1.2.840.10008.1.2"
    assert (dataset.Modality, dataset.ApprovalStatus) == ("RTSTRUCT", "UNAPPROVED")
    assert dataset.StudyInstanceUID == source.StudyInstanceUID
    assert dataset.PatientID == source.PatientID
    frame = dataset.ReferencedFrameOfReferenceSequence[0]
    assert frame.FrameOfReferenceUID == source.FrameOfReferenceUID
    series = frame.RTReferencedStudySequence[0].RTReferencedSeriesSequence[0]
    assert series.SeriesInstanceUID == source.SeriesInstanceUID
    named = {item.ReferencedSOPInstanceUID for item in series.ContourImageSequence}
    assert named == {dcmread(path).SOPInstanceUID for path in paths}
    rois = {int(r.ROINumber): r for r in dataset.StructureSetROISequence}
    assert [rois[n].ROIName for n in (1, 2, 3)] == [
        "Liver without tumour",
        "Liver tumour",
        "Liver including tumour",
    ]
    assert {r.ROIGenerationAlgorithm for r in rois.values()} == {"AUTOMATIC"}
    colours = {
        int(r.ReferencedROINumber): [int(v) for v in r.ROIDisplayColor]
        for r in dataset.ROIContourSequence
    }
    assert colours[1] == [221, 130, 101]
    assert colours[2] == [144, 238, 144]
    kinds = {c.ContourGeometricType for r in dataset.ROIContourSequence for c in r.ContourSequence}
    assert kinds == {"CLOSED_PLANAR"}


def test_the_same_key_writes_the_same_file(tmp_path: Path) -> None:
    case = load(choose(scan(write_series(tmp_path / "in", VALUES, GRID), "ct"))[0])
    seg = to_bytes(build_seg(case.series, labels(VALUES), LABELS, ALGORITHM, "key"))
    content = read_seg(seg, case.native)
    one, two, other = (
        build_rtstruct(case.series, content, key) for key in ("key", "key", "another")
    )
    assert to_bytes(one) == to_bytes(two)
    assert one.SOPInstanceUID != other.SOPInstanceUID


def odd() -> dict[str, NDArray[np.uint8]]:
    empty = np.zeros(GRID.shape, np.uint8)
    ring, voxel, diagonal, edge, nested = (empty.copy() for _ in range(5))
    ring[2, 5:30, 5:40], ring[2, 10:20, 10:30], ring[2, 22:25, 8:12] = 1, 0, 0
    voxel[0, 0, 0] = 2
    diagonal[3, 5, 5] = diagonal[3, 6, 6] = diagonal[3, 7, 5] = 1
    edge[:] = 1
    nested[4, 5:35, 5:40], nested[4, 8:30, 8:36] = 1, 0
    nested[4, 12:25, 12:30], nested[4, 15:20, 15:20] = 1, 2
    return {
        "empty": empty,
        "two holes": ring,
        "one voxel": voxel,
        "diagonal": diagonal,
        "everything": edge,
        "an island in a hole": nested,
    }


@pytest.mark.parametrize("name", odd())
def test_odd_masks(tmp_path: Path, name: str) -> None:
    mask = odd()[name]
    paths = write_series(tmp_path / "in", VALUES, GRID)
    case = load(choose(scan(paths, "ct"))[0])
    dataset = written(case, mask, tmp_path / "rtstruct.dcm")
    for number, truth in ((1, mask == 1), (2, mask == 2), (3, mask != 0)):
        assert np.array_equal(filled(dataset, number, paths), truth)


@given(arrays(bool, (9, 11)))
@settings(max_examples=150, deadline=None)
def test_any_slice_comes_back(inside: NDArray[np.bool_]) -> None:
    image = Dataset()
    image.Rows, image.Columns = inside.shape
    again = np.zeros_like(inside)
    for ring in outlines(inside):
        piece = _inside(ring, image)
        assert not (again & piece).any()
        again |= piece
    assert np.array_equal(again, inside)


def test_another_filler_agrees() -> None:
    inside = odd()["two holes"][2] != 0
    scale = 20
    canvas = Image.new("1", (inside.shape[1] * scale, inside.shape[0] * scale))
    for ring in outlines(inside):
        corners = [(x, y) for x, y in ((ring + 0.5) * scale).tolist()]
        ImageDraw.Draw(canvas).polygon(corners, fill=1)
    centres = np.asarray(canvas)[scale // 2 :: scale, scale // 2 :: scale]
    assert np.array_equal(centres, inside)


def test_enhanced_sources_are_named_by_frame(tmp_path: Path) -> None:
    path = write_enhanced(tmp_path / "e", [VALUES + 1, VALUES], GRID)
    case = load(scan([path], "mr").series[1])
    dataset = written(case, labels(VALUES), tmp_path / "rtstruct.dcm")
    source = dcmread(path)
    for contour in dataset.ROIContourSequence[0].ContourSequence:
        item = contour.ContourImageSequence[0]
        frame = source.PerFrameFunctionalGroupsSequence[int(item.ReferencedFrameNumber) - 1]
        place = frame.PlanePositionSequence[0].ImagePositionPatient
        assert float(contour.ContourData[2]) == pytest.approx(float(place[2]), abs=1e-3)
        assert frame.FrameContentSequence[0].TemporalPositionIndex == 2


def test_real_mr(real: Real, tmp_path: Path) -> None:
    paths = real("mr_chaos_t1dual_10")
    case = load(choose(scan(paths, "mr"))[0])
    bright = case.volume.array > np.percentile(case.volume.array, 90)
    mask = np.where(bright, 1, 0).astype(np.uint8)
    mask[:10], mask[16:] = 0, 0
    dataset = written(case, mask, tmp_path / "rtstruct.dcm")
    used = [plane.file.path for plane in case.series.instances]
    assert dice(filled(dataset, 1, used), mask == 1) >= 0.999
