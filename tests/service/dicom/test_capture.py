"""The pictures: lines where the mask is, sides and places as the geometry says, valid DICOM."""

from pathlib import Path

import numpy as np
import pytest
from dicom_peers import Real, dciodvfy_errors
from dicom_phantoms import ORIENTATIONS, Grid, Recipe, body, labels, write_enhanced, write_series
from numpy.typing import NDArray
from pydicom import dcmread
from pydicom.dataset import Dataset

from model.spec import LIVER_LABEL, TUMOUR_LABEL
from service.dicom import capture
from service.dicom.capture import build_capture
from service.dicom.codes import as_rgb
from service.dicom.overlay import Caption, Picture, paint
from service.dicom.pixels import LoadedSeries, load, native_values
from service.dicom.seg import Algorithm, build_seg, to_bytes
from service.dicom.segread import read_seg
from service.dicom.series import choose, scan

LABELS = (LIVER_LABEL, TUMOUR_LABEL)
ALGORITHM = Algorithm("A-QCF-Net small", "1.0")
GRID = Grid((8, 160, 192), (5.0, 0.5, 0.25))
VALUES = body(GRID)
MASK = labels(VALUES)
WORDS = 100  # rows of a picture, at the top and the bottom, in which words can lie


def written(case: LoadedSeries, mask: NDArray[np.uint8], folder: Path) -> list[Dataset]:
    """The pictures, on disk and the first one valid, in the order of their numbers."""
    folder.mkdir()
    seg = to_bytes(build_seg(case.series, mask, LABELS, ALGORITHM, "key"))
    pictures = []
    for dataset in build_capture(case.series, read_seg(seg, case.native), "key"):
        path = folder / f"{dataset.InstanceNumber}.dcm"
        path.write_bytes(to_bytes(dataset))
        assert pictures or not dciodvfy_errors(path)
        pictures.append(dcmread(path))
    return pictures


def loaded(folder: Path, grid: Grid = GRID, recipe: Recipe | None = None) -> LoadedSeries:
    values = body(Grid(grid.shape, grid.spacing, grid.orientation))
    paths = write_series(folder / "in", values, grid, recipe or Recipe())
    return load(choose(scan(paths, "ct"))[0])


def in_patient(picture: Dataset, where: NDArray[np.bool_]) -> NDArray[np.float64]:
    """LPS mm of the middle of some pixels, by the picture's own geometry."""
    rows, columns = np.nonzero(where)
    cosines = np.array(picture.ImageOrientationPatient, float)
    between_rows, between_columns = map(float, picture.PixelSpacing)
    middle: NDArray[np.float64] = (
        np.array(picture.ImagePositionPatient, float)
        + columns.mean() * between_columns * cosines[:3]
        + rows.mean() * between_rows * cosines[3:]
    )
    return middle


def drawn(picture: Dataset, label: object) -> NDArray[np.bool_]:
    """Where a segment's colour is, words left out."""
    same = (picture.pixel_array == as_rgb(label)).all(axis=-1)  # type: ignore[arg-type]
    same[:WORDS] = False
    found: NDArray[np.bool_] = same
    return found


@pytest.mark.parametrize("name", ORIENTATIONS)
def test_the_lines_lie_where_the_mask_is(tmp_path: Path, name: str) -> None:
    grid = Grid((8, 160, 192), (5.0, 0.5, 0.25), ORIENTATIONS[name], (11.0, -7.0, 30.0))
    case = loaded(tmp_path, grid)
    mask = labels(case.volume.array)
    lesion = np.argmax((mask == 2).sum(axis=(1, 2)))
    picture = next(
        picture
        for picture in written(case, mask, tmp_path / "out")
        if picture.SourceImageSequence[0].ReferencedSOPInstanceUID
        == case.series.instances[lesion].file.sop_instance_uid
    )
    z, y, x = np.nonzero((mask == 2) & (np.indices(mask.shape)[0] == lesion))
    truth = (case.native.affine @ np.stack([x, y, z, np.ones_like(x)])).mean(axis=1)[:3]
    assert np.linalg.norm(in_patient(picture, drawn(picture, TUMOUR_LABEL)) - truth) < 0.3


def test_the_lines_are_the_edge_of_the_mask_and_the_tissue_stays_visible(tmp_path: Path) -> None:
    case = loaded(tmp_path)
    pictures = written(case, MASK, tmp_path / "out")
    factor = pictures[0].Columns // GRID.shape[2]
    assert (pictures[0].Rows, pictures[0].Columns) == (480, 576)
    named = {p.file.sop_instance_uid: i for i, p in enumerate(case.series.instances)}
    values, _ = native_values(case.series)
    for picture in pictures:
        index = named[picture.SourceImageSequence[0].ReferencedSOPInstanceUID]
        tumour = (MASK[index] == 2).repeat(factor, 0).repeat(factor, 1)
        inner = tumour[2:-2, 2:-2] & tumour[4:, 2:-2] & tumour[:-4, 2:-2] & tumour[2:-2, 4:]
        inner &= tumour[2:-2, :-4]
        assert not (drawn(picture, TUMOUR_LABEL) & ~tumour).any()
        assert drawn(picture, TUMOUR_LABEL).any() == tumour.any()
        assert not drawn(picture, TUMOUR_LABEL)[2:-2, 2:-2][inner].any()
        grey = picture.pixel_array[2:-2, 2:-2][inner]
        wanted = round((40 + 160) / 400 * 255)
        assert (np.abs(grey.astype(int) - wanted) < 10).all()  # smoothed towards its neighbours
    assert values[MASK == 2].mean() == 40


def test_the_attributes(tmp_path: Path) -> None:
    case = loaded(tmp_path, recipe=Recipe(descending=True))
    pictures = written(case, MASK, tmp_path / "out")
    source = dcmread(case.series.instances[0].file.path)
    for picture in pictures:
        assert picture.SOPClassUID == "1.2.840.10008.5.1.4.1.1.7"
        assert picture.file_meta.TransferSyntaxUID == "1.2.840.10008.1.2.1"
        assert (picture.ConversionType, picture.BurnedInAnnotation) == ("WSD", "YES")
        assert list(picture.ImageType) == ["DERIVED", "SECONDARY"]
        assert picture.FrameOfReferenceUID == source.FrameOfReferenceUID
        assert picture.StudyInstanceUID == source.StudyInstanceUID
        assert picture.SeriesInstanceUID != source.SeriesInstanceUID
        assert picture.PatientID == source.PatientID
        assert "small 1.0" in picture.DerivationDescription
    order = [float(picture.ImagePositionPatient[2]) for picture in pictures]
    assert order == sorted(order, reverse=True), "scrolls as the source does"
    held = np.flatnonzero(MASK.any(axis=(1, 2)))
    assert len(pictures) == min(held[-1] + 2, 7) - max(held[0] - 2, 0) + 1
    assert len({picture.SOPInstanceUID for picture in pictures}) == len(pictures)


def test_the_first_voxel_keeps_its_outer_corner(tmp_path: Path) -> None:
    """A voxel of 0.5 x 0.25 mm is nine pixels; all of them together lie where it lies."""
    case = loaded(tmp_path)
    picture = written(case, MASK, tmp_path / "out")[0]
    place = dcmread(case.series.instances[0].file.path).ImagePositionPatient
    assert [float(v) for v in picture.PixelSpacing] == pytest.approx([0.5 / 3, 0.25 / 3])
    off = np.array(picture.ImagePositionPatient[:2], float) - np.array(place[:2], float)
    assert off == pytest.approx([-0.25 / 3, -0.5 / 3])


SIDES = {
    "axial": ("R", "L", ["L", "P"]),
    "axial, seen from above": ("L", "R", ["R", "P"]),
    "coronal": ("R", "L", ["L", "F"]),
    "sagittal": ("A", "P", ["P", "F"]),
    "oblique": ("RA", "LP", ["LP", "F"]),
}


@pytest.mark.parametrize("name", SIDES)
def test_the_sides_of_the_patient(tmp_path: Path, name: str) -> None:
    grid = Grid((8, 40, 48), (5.0, 1.5, 1.0), ORIENTATIONS[name])
    case = loaded(tmp_path, grid)
    mask = labels(case.volume.array)
    seg = to_bytes(build_seg(case.series, mask, LABELS, ALGORITHM, "key"))
    picture = next(build_capture(case.series, read_seg(seg, case.native), "key"))
    left, right, leads = SIDES[name]
    assert list(picture.PatientOrientation) == leads
    size = round(picture.Columns / 36)
    edges = picture.pixel_array.reshape(picture.Rows, picture.Columns, 3)
    middle = slice(picture.Rows // 2 - size, picture.Rows // 2 + size)
    blank = paint(_blank((grid.shape[1], grid.shape[2]), picture.Columns // 48, left, right))
    for side in (slice(0, 2 * size), slice(-2 * size, None)):
        shown, wanted = edges[middle, side] > 200, blank[middle, side] > 200
        assert wanted.any()
        assert np.array_equal(shown, wanted)


def _blank(shape: tuple[int, int], factor: int, left: str, right: str) -> Picture:
    caption = Caption("title", left, right, "", tumour=False, evaluable=True)
    dark = np.full(shape, -1000, np.int16), np.zeros(shape, np.uint8)
    return Picture(*dark, (-160, 240), factor, LABELS, caption)


def test_words_say_what_was_found(tmp_path: Path) -> None:
    """The same slice with a tumour, without one, and not evaluable: three different pictures."""
    case = loaded(tmp_path)
    found = written(case, MASK, tmp_path / "found")
    healthy = written(case, np.minimum(MASK, 1), tmp_path / "healthy")
    nothing = written(case, np.zeros_like(MASK), tmp_path / "nothing")
    assert len(found) == len(healthy) > 1
    assert len(nothing) == 1
    tumour = np.array(as_rgb(TUMOUR_LABEL))
    assert (found[0].pixel_array == tumour).all(axis=-1)[:WORDS].any()
    assert not any((p.pixel_array == tumour).all(axis=-1).any() for p in healthy)
    warning = (nothing[0].pixel_array == (255, 196, 0)).all(axis=-1)
    columns = np.flatnonzero(warning.any(axis=0))
    assert warning.sum() > 500
    assert np.ptp(columns) > nothing[0].Columns // 4


def test_a_long_name_fits(tmp_path: Path) -> None:
    picture = _blank((512, 512), 1, "R", "L")
    long = Caption("A-QCF-Net " + "m" * 64 + " - research use only", "R", "L", "", True, True)
    pixels = paint(Picture(picture.values, picture.mask, (-160, 240), 1, LABELS, long))
    words = np.flatnonzero((pixels[:24] > 60).any(axis=(0, 2)))
    assert words.min() > 3
    assert words.max() < 508
    assert np.ptp(words) > 400


def test_the_same_key_makes_the_same_pictures(tmp_path: Path) -> None:
    case = loaded(tmp_path)
    content = read_seg(
        to_bytes(build_seg(case.series, MASK, LABELS, ALGORITHM, "key")), case.native
    )
    one, two = (
        [to_bytes(picture) for picture in build_capture(case.series, content, "key")]
        for _ in range(2)
    )
    assert one == two


def test_enhanced_and_mr(tmp_path: Path) -> None:
    path = write_enhanced(tmp_path / "e", [VALUES + 1000, VALUES], GRID)
    case = load(scan([path], "mr").series[1])
    pictures = written(case, MASK, tmp_path / "out")
    frames = [p.SourceImageSequence[0].ReferencedFrameNumber for p in pictures]
    assert len(set(frames)) == len(pictures)
    inside = MASK[int(np.argmax((MASK == 1).sum(axis=(1, 2))))] == 1
    assert inside.any()
    assert any(p.pixel_array.max() > 200 for p in pictures)


def test_margin_follows_the_slice_spacing(tmp_path: Path) -> None:
    grid = Grid((20, 40, 48), (2.0, 1.5, 1.0))
    case = loaded(tmp_path, grid)
    mask = np.zeros(grid.shape, np.uint8)
    mask[8:10, 5:9, 5:9] = 1
    seg = to_bytes(build_seg(case.series, mask, LABELS, ALGORITHM, "key"))
    pictures = list(build_capture(case.series, read_seg(seg, case.native), "key"))
    assert len(pictures) == 2 + 2 * round(capture.MARGIN_MM / 2.0)


@pytest.mark.parametrize(
    ("name", "modality"), [("edge_enhanced_multiframe", "mr"), ("edge_dicom2nifti_failing", "ct"),
                           ("ct_totalsegmentator_20slices_j2k", "ct")]
)  # fmt: skip
def test_real_series(real: Real, tmp_path: Path, name: str, modality: str) -> None:
    usable = [s for s in scan(real(name), modality).series if s.code is None]  # type: ignore[arg-type]
    case = load(usable[0])
    mask = np.zeros((case.native.slices, case.native.rows, case.native.columns), np.uint8)
    mask[1, 3:12, 4:9], mask[1, 5:8, 5:7] = 1, 2
    assert written(case, mask, tmp_path / "out")
