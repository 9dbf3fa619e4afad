"""Which series are found, refused and chosen: bad input, and every zip of real DICOM."""

import json
from pathlib import Path

import numpy as np
import pytest
from dicom_peers import Real
from dicom_phantoms import (
    Grid,
    Recipe,
    body,
    common,
    deflate_bomb,
    write,
    write_enhanced,
    write_series,
)
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    RLELossless,
)

from service.dicom.errors import DicomInputError
from service.dicom.hashing import content_key
from service.dicom.series import ScanLimits, choose, scan

GRID = Grid()
VALUES = body(GRID)


def refusal(paths: list[Path], modality: str = "ct", **limits: int) -> DicomInputError:
    with pytest.raises(DicomInputError) as caught:
        choose(scan(paths, modality, ScanLimits(**limits)))  # type: ignore[arg-type]
    return caught.value


def test_nothing_at_all() -> None:
    assert refusal([]).code == "empty_upload"


def test_text_renamed_and_empty_files_are_no_dicom(tmp_path: Path) -> None:
    (tmp_path / "a.dcm").write_text("Patient: nobody\n" * 40)
    (tmp_path / "b.dcm").write_bytes(b"")
    (tmp_path / "c.dcm").write_bytes(bytes(4000))
    error = refusal(sorted(tmp_path.iterdir()))
    assert error.code == "not_dicom"
    assert [(line.key, line.images) for line in error.receipt] == [("x1", 3)]


def test_a_corrupt_header_is_invalid_dicom(tmp_path: Path) -> None:
    (tmp_path / "a.dcm").write_bytes(bytes(128) + b"DICM" + b"\x02\x00" + b"\xff" * 300)
    assert refusal([tmp_path / "a.dcm"]).code == "invalid_dicom"


def test_wrong_modality(tmp_path: Path) -> None:
    paths = write_series(tmp_path, VALUES, GRID, Recipe(modality="MR", intercept=0))
    assert refusal(paths, "ct").code == "wrong_modality"


@pytest.mark.parametrize("cut", [1, 2000, 3839])
def test_truncated_native_pixels(tmp_path: Path, cut: int) -> None:
    paths = write_series(tmp_path, VALUES, GRID)
    paths[3].write_bytes(paths[3].read_bytes()[:-cut])
    assert refusal(paths).code == "truncated_pixel_data"


def test_truncated_compressed_pixels(tmp_path: Path) -> None:
    paths = write_series(tmp_path, VALUES, GRID, Recipe(syntax="1.2.840.10008.1.2.5"))
    paths[3].write_bytes(paths[3].read_bytes()[:-60])
    assert refusal(paths).code == "truncated_pixel_data"


def edited(tmp_path: Path, **values: object) -> list[Path]:
    def edit(dataset: Dataset, index: int) -> None:
        for keyword, value in values.items():
            if value is None:
                del dataset[keyword]
            else:
                setattr(dataset, keyword, value)

    return write_series(tmp_path, VALUES, GRID, Recipe(edit=edit))


@pytest.mark.parametrize(
    ("values", "code"),
    [
        ({"PixelData": None}, "no_pixel_data"),
        ({"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB"}, "colour_image"),
        ({"PhotometricInterpretation": "PALETTE COLOR"}, "colour_image"),
        ({"Modality": "SEG"}, "not_an_image"),
        ({"Modality": "RTSTRUCT", "PixelData": None}, "not_an_image"),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.481.3"}, "not_an_image"),
        ({"BitsAllocated": 12}, "unsupported_pixel_format"),
        ({"BitsStored": 17}, "unsupported_pixel_format"),
        ({"RescaleSlope": 1e300}, "unsupported_pixel_format"),
        ({"RescaleIntercept": -1e10}, "unsupported_pixel_format"),
        ({"Modality": "PT"}, "wrong_modality"),
        ({"SeriesDescription": "Topogram 0.6"}, "localizer_only"),
    ],
)
def test_unusable_images(tmp_path: Path, values: dict[str, object], code: str) -> None:
    assert refusal(edited(tmp_path, **values)).code == code


@pytest.mark.parametrize("syntax", ["1.2.840.113619.5.2", "1.2.3"])
def test_a_transfer_syntax_that_is_not_dicoms_is_refused(tmp_path: Path, syntax: str) -> None:
    paths = write_series(tmp_path, VALUES, GRID)
    for path in paths:
        dataset = dcmread(path)
        dataset.file_meta.TransferSyntaxUID = UID(syntax)
        dataset.save_as(path, implicit_vr=False, little_endian=True)
    assert refusal(paths).code == "unsupported_pixel_format"


def test_declared_pixels_are_bounded_before_anything_is_read(tmp_path: Path) -> None:
    def huge(dataset: Dataset, index: int) -> None:
        dataset.NumberOfFrames = 2**30
        dataset.Rows = dataset.Columns = 65535

    recipe = Recipe(modality="MR", intercept=0, edit=huge)
    path = write_enhanced(tmp_path / "huge", [VALUES], GRID, recipe)
    assert refusal([path], "mr").code == "input_too_large"
    paths = write_series(tmp_path / "many", VALUES, GRID)
    assert refusal(paths, max_voxels=40 * 48 * 7).code == "input_too_large"


def test_a_deflate_bomb_is_refused(tmp_path: Path) -> None:
    bomb = deflate_bomb(tmp_path / "bomb", megabytes=80)
    assert bomb.stat().st_size < 2**20
    assert refusal([bomb]).code == "input_too_large"


def test_a_dicomdir_beside_a_series_does_no_harm(tmp_path: Path) -> None:
    directory = Dataset()
    directory.SOPClassUID, directory.SOPInstanceUID = "1.2.840.10008.1.3.10", "1.2.3"
    write(directory, tmp_path / "DICOMDIR")
    paths = write_series(tmp_path / "s", VALUES, GRID)
    series, receipt = choose(scan([*paths, tmp_path / "DICOMDIR"], "ct"))
    assert series.key == "s1"
    assert [line.code for line in receipt] == [None, "not_an_image"]


def test_choose_by_key(tmp_path: Path) -> None:
    paths = write_series(tmp_path, VALUES, GRID)
    paths += write_series(tmp_path, VALUES[:2], GRID, Recipe(series=2))
    found = scan(paths, "ct")
    assert choose(found, "s1")[0].key == "s1"
    for key, code in (("s2", "too_few_slices"), ("s9", "unknown_series")):
        with pytest.raises(DicomInputError) as caught:
            choose(found, key)
        assert caught.value.code == code
        assert caught.value.receipt == found.receipt


def test_several_reasons_give_no_usable_series(tmp_path: Path) -> None:
    paths = write_series(tmp_path, VALUES[:2], GRID)
    paths += write_series(tmp_path, VALUES, GRID, Recipe(series=2, modality="MR"))
    error = refusal(paths)
    assert error.code == "no_usable_series"
    assert {line.code for line in error.receipt} == {"too_few_slices", "wrong_modality"}


def test_ranking(tmp_path: Path) -> None:
    wide = Grid(shape=(30, 50, 50), spacing=(5.0, 6.0, 6.0))
    values = np.zeros(wide.shape, np.int16)

    def series(number: int, grid: Grid = wide, **changes: object) -> list[Path]:
        def edit(dataset: Dataset, index: int) -> None:
            for keyword, value in changes.items():
                setattr(dataset, keyword, value)

        recipe = Recipe(modality="MR", intercept=0, series=number, edit=edit)
        return write_series(tmp_path / str(number), values[: grid.shape[0]], grid, recipe)

    ranked = [
        series(9, ScanningSequence="GR", MagneticFieldStrength=1.5, EchoTime=4.6),
        series(8),
        series(7, ScanningSequence="GR", MagneticFieldStrength=1.5, EchoTime=2.3),
        series(6, SeriesDescription="t1 head"),
        series(5, DiffusionBValue=800.0),
        series(4, ImageType=["DERIVED", "PRIMARY", "ADC"]),
        series(3, Grid(wide.shape, wide.spacing, (1, 0, 0, 0, 0, -1))),
        series(2, Grid((6, 50, 50), wide.spacing)),
    ]
    for worst in range(2, len(ranked) + 1):
        paths = [path for group in ranked[worst - 2 : worst][::-1] for path in group]
        chosen, receipt = choose(scan(paths, "mr"))
        assert chosen.facts.number == 11 - worst
        assert sum(line.status == "chosen" for line in receipt) == 1


def test_keys_and_content_key_do_not_depend_on_files(tmp_path: Path) -> None:
    paths = write_series(tmp_path / "a", VALUES, GRID)
    shuffled = []
    for number, path in enumerate(reversed(paths)):
        moved = tmp_path / f"{number * 7 % 8}"
        moved.write_bytes(path.read_bytes())
        shuffled.append(moved)
    one, two = choose(scan(paths, "ct"))[0], choose(scan(shuffled, "ct"))[0]
    assert one.key == two.key == "s1"
    assert content_key(one) == content_key(two)
    other = write_series(tmp_path / "b", VALUES + 1, GRID)
    assert content_key(choose(scan(other, "ct"))[0]) != content_key(one)


def test_uncompressed_syntaxes_have_one_content_key(tmp_path: Path) -> None:
    native = (
        ExplicitVRLittleEndian,
        ImplicitVRLittleEndian,
        ExplicitVRBigEndian,
        DeflatedExplicitVRLittleEndian,
    )
    keys = set()
    for syntax in native:
        paths = write_series(tmp_path / str(syntax), VALUES, GRID, Recipe(syntax=syntax))
        assert dcmread(paths[0]).file_meta.TransferSyntaxUID == syntax
        keys.add(content_key(choose(scan(paths, "ct"))[0]))
    swapped = VALUES.astype(np.int16).byteswap()
    other = write_series(tmp_path / "swapped", swapped, GRID, Recipe())
    packed = write_series(tmp_path / "packed", VALUES, GRID, Recipe(syntax=RLELossless))
    assert len(keys) == 1
    assert not keys & {content_key(choose(scan(paths, "ct"))[0]) for paths in (other, packed)}


def test_content_key_sees_a_changed_rescale(tmp_path: Path) -> None:
    keys = set()
    for intercept in (0, 1):
        paths = edited(tmp_path / str(intercept), RescaleIntercept=intercept)
        keys.add(content_key(choose(scan(paths, "ct"))[0]))
    assert len(keys) == 2


def test_content_key_sees_whose_images_they_are(tmp_path: Path) -> None:
    """An archive that has corrected a patient or a study sends the same images again."""
    keys = set()
    for number, corrected in enumerate(
        ({}, {"PatientID": "other"}, {"StudyInstanceUID": "2.25.9"}, {"StudyDescription": "other"})
    ):
        paths = edited(tmp_path / str(number), **corrected)
        keys.add(content_key(choose(scan(paths, "ct"))[0]))
    assert len(keys) == 3


@pytest.mark.parametrize("series_uid", ["2.25.7", ""])
def test_images_of_two_studies_are_never_one_volume(tmp_path: Path, series_uid: str) -> None:
    """Whatever UID their series were given when names were taken away: two patients, it may be."""
    paths = write_series(tmp_path, VALUES, GRID)
    half = len(paths) // 2
    for number, path in enumerate(paths):
        dataset = dcmread(path)
        dataset.SeriesInstanceUID = series_uid
        dataset.StudyInstanceUID = "2.25.1" if number < half else "2.25.2"
        dataset.save_as(path)
    found = scan(paths, "ct")
    assert [line.images for line in found.receipt] == [half, len(paths) - half]


def test_error_texts_and_receipt_hold_no_identity(tmp_path: Path) -> None:
    paths = write_series(tmp_path, VALUES[:2], GRID)
    error = refusal(paths)
    text = str(error) + json.dumps([line.as_json() for line in error.receipt])
    header = dcmread(paths[0], stop_before_pixels=True)
    for secret in ("Canary", "CANARY", "19700101", header.SeriesInstanceUID, paths[0].name):
        assert secret not in text


def test_missing_modality_is_taken_from_the_class_or_as_asked(tmp_path: Path) -> None:
    series, _ = choose(scan(edited(tmp_path, Modality=None), "ct"))
    assert series.facts.modality == "CT"


def test_common_header_alone_is_no_image(tmp_path: Path) -> None:
    dataset = common(GRID, Recipe())
    dataset.SOPClassUID, dataset.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.2", "1.2.3"
    write(dataset, tmp_path / "a")
    assert refusal([tmp_path / "a"]).code == "no_pixel_data"


# (name, modality) -> what every line of the receipt says: key, images, code
RECEIPTS = {
    ("ct_msd_liver0", "ct"): "s1 75 None",
    ("ct_msd_liver0", "mr"): "s1 75 wrong_modality",
    ("ct_totalsegmentator_20slices_j2k", "ct"): "s1 20 None",
    ("mr_chaos_t1dual_10", "mr"): "s1a 50 None, s1b 50 None",
    ("edge_dicom2nifti_compressed", "mr"): (
        "s1 4 None, s2 4 None, s3 4 None, s4 4 None, s5 4 colour_image, x1 18 not_dicom"
    ),
    ("edge_dicom2nifti_failing", "ct"): (
        "s1 4 None, s2 4 None, s3 4 too_few_slices, s4 4 None, "
        "s5 2 wrong_modality, s6 2 wrong_modality, s7 2 wrong_modality, x1 4 not_dicom"
    ),
    ("edge_dicom2nifti_failing", "mr"): (
        "s1 4 wrong_modality, s2 4 wrong_modality, s3 4 wrong_modality, s4 4 wrong_modality, "
        "s5 2 too_few_slices, s6 2 too_few_slices, s7 2 too_few_slices, x1 4 not_dicom"
    ),
    ("edge_enhanced_multiframe", "mr"): (
        "s1 8 None, s2 4 None, s3 4 None, s4 8 None, s5 8 None, s6 8 None, x1 12 not_dicom"
    ),
    ("seg_by_others_dcmqi", "ct"): (
        "s1 3 None, s2 3 None, s3 3 None, s4 3 None, s5 3 None, x1 6 not_an_image, x2 17 not_dicom"
    ),
    ("seg_by_others_highdicom", "ct"): (
        "s1 1 wrong_modality, s2 1 wrong_modality, s3 2 wrong_modality, s4 1 wrong_modality, "
        "s5 1 wrong_modality, s6 2 wrong_modality, s7 1 too_few_slices, s8 1 wrong_modality, "
        "x1 1 not_an_image, x2 12 not_an_image, x3 2 not_an_image, x4 4 not_dicom"
    ),
}


@pytest.mark.parametrize(("name", "modality"), RECEIPTS)
def test_receipts_of_real_series(real: Real, name: str, modality: str) -> None:
    receipt = scan(real(name), modality).receipt  # type: ignore[arg-type]
    lines = ", ".join(f"{line.key} {line.images} {line.code}" for line in receipt)
    assert lines == RECEIPTS[name, modality]


def test_chaos_phases_are_split_and_the_in_phase_one_is_chosen(real: Real) -> None:
    chosen, receipt = choose(scan(real("mr_chaos_t1dual_10"), "mr"))
    assert [line.notes for line in receipt] == [
        ("split by echo number: 1 of 2",),
        ("split by echo number: 2 of 2",),
    ]
    assert [line.status for line in receipt] == ["usable", "chosen"]
    assert {plane.file.path.parent.name for plane in chosen.instances} == {"InPhase"}


def test_real_notes(real: Real) -> None:
    notes = {
        name: " ".join(note for line in scan(real(name), m).receipt for note in line.notes)  # type: ignore[arg-type]
        for name, m in (
            ("edge_dicom2nifti_failing", "ct"),
            ("edge_dicom2nifti_compressed", "mr"),
            ("ct_totalsegmentator_20slices_j2k", "ct"),
        )
    }
    assert "one slice is missing" in notes["edge_dicom2nifti_failing"]
    assert "tilted by 15.5 degrees one slice is missing" in notes["edge_dicom2nifti_failing"]
    assert "tilted by 14.0 degrees" in notes["edge_dicom2nifti_failing"]
    assert "16 images sent twice" in notes["edge_dicom2nifti_compressed"]
    assert "no valid study UID" in notes["ct_totalsegmentator_20slices_j2k"]
