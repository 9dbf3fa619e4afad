"""CHAOS and 3D-IRCADb-1, as they are downloaded."""

import shutil
from pathlib import Path
from zipfile import ZIP_DEFLATED, ZipFile

import numpy as np
import pytest
from downloads import grid, outline, picture, straight, write_pngs, write_series
from numpy.testing import assert_allclose, assert_array_equal

from model.errors import InputError
from model.nifti import read_nifti
from model.types import Affine
from training.sources import Record, find_records

LIVER = outline(tumours=False)
ORGANS = LIVER * np.uint8(63)
ORGANS[-1, 0, :4] = (126, 189, 252, 255)  # kidneys, spleen, and a spleen at the end of its range


def chaos(folder: Path, *, descending: bool = False, turn: str = "axial") -> Affine:
    """CT 5; MR 5 with both sequences; names as in the archive."""
    affine, count = grid(turn=turn), len(LIVER)
    ranks = list(range(count))[:: -1 if descending else 1]
    ct, mr = folder / "Train_Sets" / "CT" / "5", folder / "Train_Sets" / "MR" / "5"
    write_series([ct / f"DICOM_anon/i{k:04d},0000b.dcm" for k in ranks], picture(1), affine,
                 RescaleSlope="1", RescaleIntercept="-20")  # fmt: skip
    write_pngs([ct / f"Ground/liver_GT_{k:03d}.png" for k in ranks], LIVER * np.uint8(255))
    t1, t2 = mr / "T1DUAL", mr / "T2SPIR"
    for phase, seed, odd in (("InPhase", 2, 0), ("OutPhase", 3, 1)):
        names = [f"DICOM_anon/{phase}/IMG-0004-{2 * k + 2 - odd:05d}.dcm" for k in ranks]
        write_series([t1 / name for name in names], picture(seed).astype(np.uint16), affine)
    write_pngs([t1 / f"Ground/IMG-0004-{2 * k + 2:05d}.png" for k in ranks], ORGANS)
    write_series([t2 / f"DICOM_anon/IMG-0003-{k + 1:05d}.dcm" for k in ranks],
                 picture(4).astype(np.uint16), affine)  # fmt: skip
    write_pngs([t2 / f"Ground/IMG-0003-{k + 1:05d}.png" for k in ranks], ORGANS)
    return affine


def ircadb(folder: Path, number: int, *, descending: bool = False, turn: str = "axial") -> Affine:
    place, affine, label = folder / f"3Dircadb1.{number}", grid(turn=turn), outline()
    ranks = list(range(len(label)))[:: -1 if descending else 1]
    names = [f"image_{k}" for k in ranks]
    write_series([place / "PATIENT_DICOM" / n for n in names], picture(7), affine)
    one, other = label.copy(), label.copy()
    one[4:], other[:4] = 0, 0
    masks = {"liver": label > 0, "livertumor01": one == 2, "livertumor02": other == 2,
             "tumor": label == 0, "livercyst": label > 0, "bone": label == 0}  # fmt: skip
    for organ, mask in masks.items():
        pixels = mask.astype(np.uint8) * np.uint8(255)
        write_series([place / "MASKS_DICOM" / organ / n for n in names], pixels, np.eye(4))
    return affine


def named(records: list[Record]) -> dict[str, Record]:
    return {record.name: record for record in records}


def assert_same(record: Record, array: np.ndarray, label: np.ndarray, affine: Affine) -> None:
    volume, mask = record.load()
    for found, wanted in ((volume.array, array), (mask, label)):
        turned, place = straight(found, volume.affine)
        expected, where = straight(wanted, affine)
        assert_array_equal(turned, expected)
        assert_allclose(place, where, atol=1e-4)


@pytest.mark.parametrize("turn", ["axial", "oblique"])
@pytest.mark.parametrize("descending", [False, True])
def test_chaos(tmp_path: Path, turn: str, descending: bool) -> None:
    affine = chaos(tmp_path, turn=turn, descending=descending)
    records = named(find_records("chaos", tmp_path))
    contents = {
        "ct/chaos_ct_05": picture(1) - 20,
        "mr/chaos_t1_inphase_05": picture(2),
        "mr/chaos_t1_outphase_05": picture(3),
        "mr/chaos_t2spir_05": picture(4),
    }
    assert records.keys() == contents.keys()
    for name, array in contents.items():
        assert_same(records[name], array, LIVER, affine)
    patients = {record.patient for record in records.values() if record.modality == "mr"}
    assert patients == {"chaos_mr_05"}
    assert records["ct/chaos_ct_05"].patient == "chaos_ct_05"
    assert {(r.quality, r.tumour) for r in records.values()} == {("healthy", False)}


@pytest.mark.parametrize(
    ("damage", "code"),
    [("grey", "label_values"), ("missing", "label_mismatch"), ("size", "label_mismatch"),
     ("text", "broken_mask"), ("few", "label_mismatch")],
)  # fmt: skip
def test_broken_chaos_masks_are_refused(tmp_path: Path, damage: str, code: str) -> None:
    chaos(tmp_path)
    ground = tmp_path / "Train_Sets/MR/5/T2SPIR/Ground"
    file = ground / "IMG-0003-00004.png"
    if damage == "grey":
        write_pngs([file], np.full((1, *LIVER.shape[1:]), 90))
    elif damage == "size":
        write_pngs([file], ORGANS[:1, 1:])
    elif damage == "text":
        file.write_text("no picture")
    elif damage == "missing":
        file.unlink()
    else:
        shutil.rmtree(ground)
    record = named(find_records("chaos", tmp_path))["mr/chaos_t2spir_05"]
    with pytest.raises(InputError) as caught:
        record.load()
    assert caught.value.code == code


def test_real_chaos_series_are_those_converted_by_others(data_dir: Path, tmp_path: Path) -> None:
    """Both phases of T1-DUAL 10; the masks are made of the labels that lie beside them."""
    place = tmp_path / "MR" / "10" / "T1DUAL"
    with ZipFile(data_dir / "dicom" / "mr_chaos_t1dual_10.zip") as archive:
        archive.extractall(place / "DICOM_anon")
    label = read_nifti(data_dir / "mr/chaos_t1_inphase_10/label.nii.gz", "mr").array
    names = sorted(file.stem for file in (place / "DICOM_anon/InPhase").glob("*.dcm"))
    write_pngs([place / f"Ground/{name}.png" for name in names], label * 63)
    records = named(find_records("chaos", tmp_path))
    assert records.keys() == {"mr/chaos_t1_inphase_10", "mr/chaos_t1_outphase_10"}
    for name, record in records.items():
        nifti = read_nifti(data_dir / name / "image.nii.gz", "mr")
        mask = read_nifti(data_dir / name / "label.nii.gz", "mr").array
        volume, found = record.load()
        assert_array_equal(volume.array, nifti.array)
        assert_allclose(volume.affine, nifti.affine, atol=1e-4)
        assert_array_equal(found, mask)


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize("descending", [False, True])
def test_ircadb(tmp_path: Path, zipped: bool, descending: bool) -> None:
    affine = ircadb(tmp_path, 7, turn="oblique", descending=descending)
    if zipped:
        zip_parts(tmp_path / "3Dircadb1.7")
    (record,) = find_records("ircadb", tmp_path)
    assert (record.name, record.patient, record.quality) == ("ct/ircadb_07", "ircadb_07", "full")
    assert_same(record, picture(7), outline(), affine)


def test_ircadb_patients_are_numbers_of_their_folders(tmp_path: Path) -> None:
    for number in (1, 12):
        ircadb(tmp_path / "nested", number)
    names = [record.name for record in find_records("ircadb", tmp_path)]
    assert names == ["ct/ircadb_01", "ct/ircadb_12"]
    (alone,) = find_records("ircadb", tmp_path / "nested/3Dircadb1.12")
    assert alone.name == "ct/ircadb_12"


@pytest.mark.parametrize(
    ("damage", "code"),
    [("no masks", "missing_file"), ("no liver", "missing_file"), ("slice", "label_mismatch"),
     ("size", "label_mismatch"), ("zip", "broken_archive")],
)  # fmt: skip
def test_broken_ircadb_is_refused(tmp_path: Path, damage: str, code: str) -> None:
    ircadb(tmp_path, 1)
    masks = tmp_path / "3Dircadb1.1" / "MASKS_DICOM"
    if damage == "no masks":
        shutil.rmtree(masks)
    elif damage == "no liver":
        shutil.rmtree(masks / "liver")
    elif damage == "slice":
        (masks / "livertumor02/image_3").unlink()
    elif damage == "size":
        write_series([masks / "liver/image_3"], np.ones((1, 4, 4), np.uint8), np.eye(4))
    else:
        zip_parts(masks.parent)
        archive = masks.parent / "MASKS_DICOM.zip"
        archive.write_bytes(archive.read_bytes()[:-2000])
    (record,) = find_records("ircadb", tmp_path)
    with pytest.raises(InputError) as caught:
        record.load()
    assert caught.value.code == code


def zip_parts(place: Path) -> None:
    """As the data set's archive holds them."""
    for part in ("PATIENT_DICOM", "MASKS_DICOM"):
        with ZipFile(place / f"{part}.zip", "w", ZIP_DEFLATED) as archive:
            for file in sorted((place / part).rglob("image_*")):
                archive.write(file, file.relative_to(place))
        shutil.rmtree(place / part)
