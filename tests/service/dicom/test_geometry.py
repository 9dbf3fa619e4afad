"""The table of the geometry gate, row by row, on series written for it."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from dicom_phantoms import Grid, Recipe, body, labels, write_enhanced, write_series
from pydicom.dataset import Dataset

from service.dicom.errors import DicomInputError
from service.dicom.outlines import outline_at
from service.dicom.pixels import load
from service.dicom.series import Series, choose, scan

GRID = Grid()
VALUES = body(GRID)


def only(paths: list[Path], modality: str = "ct") -> Series:
    """The one series of an upload that is expected to be usable."""
    found = scan(paths, modality)  # type: ignore[arg-type]
    assert [series.code for series in found.series] == [None]
    return choose(found)[0]


def code_of(paths: list[Path], modality: str = "ct") -> str:
    with pytest.raises(DicomInputError) as caught:
        choose(scan(paths, modality))  # type: ignore[arg-type]
    assert caught.value.receipt
    return caught.value.code


def test_regular_series(tmp_path: Path) -> None:
    loaded = load(only(write_series(tmp_path, VALUES, GRID)))
    assert np.array_equal(loaded.volume.array, VALUES)
    assert np.allclose(loaded.volume.affine, GRID.affine)
    assert loaded.volume.array.dtype == np.int16
    mask = labels(VALUES)
    assert loaded.mask_to_native(mask) is mask


def test_gantry_tilt_is_accepted_and_told(tmp_path: Path) -> None:
    grid = replace(GRID, tilt=-17.0)
    series = only(write_series(tmp_path, VALUES, grid, Recipe(descending=True)))
    assert series.notes == ("tilted by 17.0 degrees",)
    loaded = load(series)
    assert np.array_equal(loaded.volume.array, VALUES)
    assert np.allclose(loaded.volume.affine, grid.affine)
    assert loaded.volume.spacing_mm == pytest.approx(GRID.spacing)
    assert series.usable_grid().step == pytest.approx(5.0)
    mask = labels(VALUES)
    assert loaded.mask_to_native(mask) is mask


def test_slices_sheared_too_far_are_no_stack(tmp_path: Path) -> None:
    paths = write_series(tmp_path, VALUES, replace(GRID, tilt=47.0))
    assert code_of(paths) == "gantry_tilt"
    assert "sheared by 47 degrees" in str(scan(paths, "ct").receipt[0].reason)


def test_one_missing_slice_is_accepted_and_told(tmp_path: Path) -> None:
    series = only(write_series(tmp_path, VALUES, GRID, Recipe(skip=frozenset({3}))))
    assert any("missing" in note for note in series.notes)
    loaded = load(series)
    assert loaded.volume.shape == GRID.shape
    kept = np.delete(np.arange(8), 3)
    assert np.array_equal(loaded.volume.array[kept], VALUES[kept])
    mask = labels(loaded.volume.array)
    assert np.array_equal(loaded.mask_to_native(mask), mask[kept])


def test_two_missing_slices_are_rejected(tmp_path: Path) -> None:
    paths = write_series(tmp_path, VALUES, GRID, Recipe(skip=frozenset({2, 5})))
    assert code_of(paths) == "missing_slices"
    paths = write_series(tmp_path / "hole", VALUES, GRID, Recipe(skip=frozenset({3, 4})))
    assert code_of(paths) == "missing_slices"


def test_identical_duplicates_are_dropped_and_told(tmp_path: Path) -> None:
    first = write_series(tmp_path, VALUES, GRID)

    def renew(dataset: Dataset, index: int) -> None:
        dataset.SOPInstanceUID += ".7"

    second = write_series(tmp_path, VALUES, GRID, Recipe(prefix="B", edit=renew))
    series = only(first + second[2:5])
    assert len(series.instances) == 8
    assert any("3 images sent twice" in note for note in series.notes)


def split_on(keyword: str, first: object, second: object):
    def edit(which: int):
        def change(dataset: Dataset, index: int) -> None:
            dataset.SOPInstanceUID += f".{which}"
            setattr(dataset, keyword, (first, second)[which])

        return change

    return edit


@pytest.mark.parametrize(
    ("keyword", "first", "second"),
    [
        ("AcquisitionNumber", 1, 2),
        ("AcquisitionTime", "100000", "100030"),
        ("ContentTime", "100000", "100030"),
        ("EchoNumbers", 1, 2),
        ("EchoTime", 2.3, 4.6),
        ("TemporalPositionIdentifier", 1, 2),
        ("ImageType", ["ORIGINAL", "PRIMARY", "IN_PHASE"], ["ORIGINAL", "PRIMARY", "OUT_PHASE"]),
    ],
)
def test_duplicate_positions_are_split(
    tmp_path: Path, keyword: str, first: object, second: object
) -> None:
    edit = split_on(keyword, first, second)
    mr = Recipe(modality="MR", intercept=0)
    one = write_series(tmp_path, VALUES, GRID, replace(mr, edit=edit(0)))
    two = write_series(tmp_path, VALUES + 1, GRID, replace(mr, prefix="B", edit=edit(1)))
    found = scan(one + two, "mr")
    assert [(s.key, s.code, len(s.instances)) for s in found.series] == [
        ("s1a", None, 8),
        ("s1b", None, 8),
    ]
    assert all(any("split by" in note for note in s.notes) for s in found.series)
    assert [int(load(s).volume.array.max()) for s in found.series] == [100, 101]


def test_a_repeated_scan_is_split_by_time_slice_by_slice(tmp_path: Path) -> None:
    def at(offset: int):
        def edit(dataset: Dataset, index: int) -> None:
            dataset.SOPInstanceUID += f".{offset}"
            dataset.AcquisitionTime = f"1200{index * 2 + offset:02d}"

        return edit

    one = write_series(tmp_path, VALUES, GRID, Recipe(edit=at(0)))
    two = write_series(tmp_path, VALUES + 1, GRID, Recipe(prefix="B", edit=at(1)))
    found = scan(one + two, "ct")
    assert [s.code for s in found.series] == [None, None]
    assert [int(load(s).volume.array.max()) for s in found.series] == [100, 101]


def test_duplicates_that_nothing_tells_apart_are_rejected(tmp_path: Path) -> None:
    one = write_series(tmp_path, VALUES, GRID)

    def renew(dataset: Dataset, index: int) -> None:
        dataset.SOPInstanceUID += ".7"

    two = write_series(tmp_path, VALUES + 1, GRID, Recipe(prefix="B", edit=renew))
    assert code_of(one + two) == "duplicate_positions"


def test_localizers_are_set_aside(tmp_path: Path) -> None:
    def scout(dataset: Dataset, index: int) -> None:
        dataset.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]
        dataset.SOPInstanceUID += ".9"

    coronal = Grid(orientation=(1, 0, 0, 0, 0, -1))
    scouts = write_series(tmp_path, VALUES, coronal, Recipe(prefix="L", edit=scout))
    paths = write_series(tmp_path, VALUES, GRID)
    series, receipt = choose(scan(paths + scouts[:2], "ct"))
    assert series.key == "s1a"
    assert [(line.key, line.status, line.code) for line in receipt] == [
        ("s1a", "chosen", None),
        ("s1b", "set_aside", "localizer"),
    ]
    assert code_of(scouts) == "localizer_only"


def test_mixed_orientations_are_split(tmp_path: Path) -> None:
    def renew(dataset: Dataset, index: int) -> None:
        dataset.SOPInstanceUID += ".9"

    sagittal = Grid(orientation=(0, 1, 0, 0, 0, -1))
    other = write_series(tmp_path, body(sagittal), sagittal, Recipe(prefix="B", edit=renew))
    found = scan(write_series(tmp_path, VALUES, GRID) + other, "ct")
    assert [s.code for s in found.series] == [None, None]
    chosen = choose(found)[0]
    assert chosen.usable_grid().axes[2, 2] == pytest.approx(1.0)


def test_non_uniform_spacing_is_resampled_by_position(tmp_path: Path) -> None:
    positions = [0.0, 5.0, 10.0, 15.0, 21.0, 28.0, 33.0, 38.0]
    series = only(write_series(tmp_path, VALUES, GRID, Recipe(positions=positions)))
    assert any("spacing varies" in note for note in series.notes)
    loaded = load(series)
    assert series.line.spacing_mm == (5.0, 1.5, 1.0)
    assert loaded.volume.spacing_mm[0] == pytest.approx(2.5)
    assert np.array_equal(loaded.volume.array[:8:2], VALUES[:4])
    assert len(loaded.mask_to_native(labels(loaded.volume.array))) == 8
    assert np.allclose(loaded.native.distances, positions)


def test_the_mask_of_a_slice_beside_the_grid_lies_between_its_neighbours() -> None:
    mask = np.zeros((3, 40, 40), np.uint8)
    mask[0, 10:30, 4:20] = 1
    mask[1, 10:30, 12:28] = 1
    mask[1, 18:22, 18:22] = 2
    between = outline_at(mask, 0.5)
    columns = np.flatnonzero((between > 0).any(axis=0))
    assert (columns[0], columns[-1]) == (8, 23)
    assert not (between == 2).any()
    assert (outline_at(mask, 0.6) == 2).sum() == 16
    assert np.array_equal(outline_at(mask, 1.01), mask[1])
    assert not outline_at(mask, 1.7).any()
    assert not outline_at(np.zeros_like(mask), 0.5).any()


def test_a_part_that_ends_stays_where_another_begins_elsewhere() -> None:
    mask = np.zeros((2, 40, 40), np.uint8)
    mask[:, 4:36, 4:36] = 1
    mask[0, 8:14, 8:14] = 2
    mask[1, 26:32, 26:32] = 2
    for place, kept in ((0.4, mask[0]), (0.6, mask[1])):
        assert np.array_equal(outline_at(mask, place), kept)


def test_what_the_slices_show_of_a_mask(tmp_path: Path) -> None:
    assert load(only(write_series(tmp_path / "even", VALUES, GRID))).shown is None
    loaded = load(only(write_series(tmp_path, VALUES, GRID, Recipe(skip=frozenset({3})))))
    mask = labels(VALUES)
    mask[3] = 2
    shown = mask.copy()
    shown[3] = 0
    assert loaded.shown is not None
    assert np.array_equal(loaded.shown(mask), shown)


def test_a_protocol_with_two_spacings_is_no_hole(tmp_path: Path) -> None:
    positions = [0.0, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0]
    series = only(write_series(tmp_path, VALUES, GRID, Recipe(positions=positions)))
    assert any("spacing varies" in note for note in series.notes)


def test_small_jitter_is_accepted(tmp_path: Path) -> None:
    def jitter(dataset: Dataset, index: int) -> None:
        x, y, z = dataset.ImagePositionPatient
        wobble = 0.009 * (-1) ** index / 2
        dataset.ImagePositionPatient = [float(x) + wobble, y, float(z) + wobble]
        cosines = np.array(dataset.ImageOrientationPatient, dtype=float)
        cosines[1] += 8e-4 * (index % 2)
        dataset.ImageOrientationPatient = cosines.tolist()

    series = only(write_series(tmp_path, VALUES, GRID, Recipe(edit=jitter)))
    assert series.usable_grid().uniform


def test_missing_identification_is_made_up_and_told(tmp_path: Path) -> None:
    def bare(dataset: Dataset, index: int) -> None:
        del dataset.FrameOfReferenceUID, dataset.Manufacturer
        dataset.StudyInstanceUID = ""

    series = only(write_series(tmp_path, VALUES, GRID, Recipe(edit=bare)))
    assert any("made up" in note for note in series.notes)


def test_varying_size_or_pixel_spacing_is_rejected(tmp_path: Path) -> None:
    def finer(dataset: Dataset, index: int) -> None:
        if index == 4:
            dataset.PixelSpacing = [0.75, 1.0]

    def smaller(dataset: Dataset, index: int) -> None:
        if index == 4:
            dataset.Rows = dataset.Rows - 2

    for number, edit in enumerate((finer, smaller)):
        paths = write_series(tmp_path / str(number), VALUES, GRID, Recipe(edit=edit))
        assert code_of(paths) == "inconsistent_pixel_grid"


def test_monochrome1_is_not_inverted(tmp_path: Path) -> None:
    def negative(dataset: Dataset, index: int) -> None:
        dataset.PhotometricInterpretation = "MONOCHROME1"

    loaded = load(only(write_series(tmp_path, VALUES, GRID, Recipe(edit=negative))))
    assert np.array_equal(loaded.volume.array, VALUES)


@pytest.mark.parametrize("count", [1, 2])
def test_too_few_slices(tmp_path: Path, count: int) -> None:
    assert code_of(write_series(tmp_path, VALUES[:count], GRID)) == "too_few_slices"


def test_images_without_geometry(tmp_path: Path) -> None:
    for keyword in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing"):

        def strip(dataset: Dataset, index: int, keyword: str = keyword) -> None:
            del dataset[keyword]

        paths = write_series(tmp_path / keyword, VALUES, GRID, Recipe(edit=strip))
        assert code_of(paths) == "no_geometry"


def test_impossible_geometry(tmp_path: Path) -> None:
    def flat(dataset: Dataset, index: int) -> None:
        dataset.ImageOrientationPatient = [1, 0, 0, 1, 0, 0]

    assert code_of(write_series(tmp_path, VALUES, GRID, Recipe(edit=flat))) == "invalid_geometry"

    for spacing in (0, 1e-30, 60):

        def wrong(dataset: Dataset, index: int, spacing: float = spacing) -> None:
            dataset.PixelSpacing = [spacing, 1]

        paths = write_series(tmp_path / f"{spacing}", VALUES, GRID, Recipe(edit=wrong))
        assert code_of(paths) == "invalid_geometry"


def test_image_types_that_differ_slice_by_slice_stay_together(tmp_path: Path) -> None:
    def kind(dataset: Dataset, index: int) -> None:
        dataset.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL", "AB"[index % 2]]

    assert len(only(write_series(tmp_path, VALUES, GRID, Recipe(edit=kind))).instances) == 8


def test_enhanced_multi_frame_of_two_dimensions_is_split(tmp_path: Path) -> None:
    path = write_enhanced(tmp_path / "enhanced", [VALUES, VALUES + 1], GRID)
    found = scan([path], "mr")
    assert [(s.key, len(s.instances)) for s in found.series] == [("s1a", 8), ("s1b", 8)]
    assert [int(load(s).volume.array.max()) for s in found.series] == [100, 101]
    assert np.allclose(load(found.series[0]).volume.affine, GRID.affine)


def test_compressed_enhanced_stacks_are_not_taken_for_duplicates(tmp_path: Path) -> None:
    recipe = Recipe(modality="MR", intercept=0, syntax="1.2.840.10008.1.2.5")
    path = write_enhanced(tmp_path / "enhanced", [VALUES, VALUES + 1], GRID, recipe)
    found = scan([path], "mr")
    assert [int(load(s).volume.array.max()) for s in found.series] == [100, 101]


def test_a_series_that_turns_is_rejected_in_one_line(tmp_path: Path) -> None:
    def turn(dataset: Dataset, index: int) -> None:
        angle = index * np.pi / 40
        dataset.ImageOrientationPatient = [np.cos(angle), np.sin(angle), 0, 0, 0, -1]

    grid = Grid((40, 6, 6))
    paths = write_series(tmp_path, body(grid), grid, Recipe(edit=turn))
    assert code_of(paths) == "mixed_orientations"


def test_enhanced_frames_without_description_are_rejected(tmp_path: Path) -> None:
    def cut(dataset: Dataset, index: int) -> None:
        dataset.PerFrameFunctionalGroupsSequence = dataset.PerFrameFunctionalGroupsSequence[:4]

    recipe = Recipe(modality="MR", intercept=0, edit=cut)
    path = write_enhanced(tmp_path / "enhanced", [VALUES], GRID, recipe)
    assert code_of([path], "mr") == "invalid_geometry"
