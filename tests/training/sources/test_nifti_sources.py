"""LiTS, the decathlon's task 3, ATLAS and LiverHccSeg, as they are downloaded."""

import json
from pathlib import Path

import numpy as np
import pytest
from downloads import grid, lits_case, outline, picture, write_pair
from numpy.testing import assert_allclose, assert_array_equal

from model.errors import ConfigError, InputError
from model.nifti import write_nifti
from training.sources import SOURCES, Record, find_records

AFFINE, LABEL = grid(turn="oblique"), outline()


def assert_loads(record: Record, seed: int) -> None:
    volume, mask = record.load()
    assert_array_equal(volume.array, picture(seed))
    assert_array_equal(mask, LABEL)
    assert_allclose(volume.affine, AFFINE, atol=1e-4)
    assert (volume.modality, volume.array.dtype) == (record.modality, np.int16)


def test_lits(tmp_path: Path) -> None:
    """In two batches, with the scans of 3D-IRCADb-1 under their own patients."""
    for folder, number in (("Training Batch 1", 3), ("Training Batch 2", 28), ("more", 47)):
        lits_case(tmp_path / folder, number, affine=AFFINE)
    write_nifti(tmp_path / "test-volume-3.nii", picture(0), AFFINE)
    records = find_records("lits", tmp_path)
    facts = [(r.name, r.patient, r.overlaps, r.quality) for r in records]
    assert facts == [
        ("ct/lits_003", "lits_003", None, "full"),
        ("ct/lits_028", "ircadb_01", "3D-IRCADb-1", "full"),
        ("ct/lits_047", "ircadb_20", "3D-IRCADb-1", "full"),
    ]
    for record, seed in zip(records, (3, 28, 47), strict=True):
        assert_loads(record, seed)


def test_msd_patients_are_those_of_lits(tmp_path: Path) -> None:
    task = tmp_path / "Task03_Liver"
    for number in (3, 28):
        names = (task / f"{part}/liver_{number}.nii.gz" for part in ("imagesTr", "labelsTr"))
        write_pair(*names, number, LABEL, AFFINE)
        (task / f"imagesTr/._liver_{number}.nii.gz").write_bytes(b"resource fork")
    write_index(task, {"0": "background", "1": "liver", "2": "cancer"})
    for folder in (tmp_path, task):
        records = find_records("msd", folder)
        assert [r.name for r in records] == ["ct/msd_liver_003", "ct/msd_liver_028"]
        assert [r.patient for r in records] == ["lits_003", "ircadb_01"]
    assert_loads(records[1], 28)
    write_index(task, {"0": "background", "1": "Vessel", "2": "Tumour"})
    with pytest.raises(ConfigError, match="Task03_Liver has 1 liver"):
        find_records("msd", tmp_path)


def write_index(task: Path, labels: dict[str, str]) -> None:
    (task / "dataset.json").write_text(json.dumps({"name": "Liver", "labels": labels}))


def test_atlas(tmp_path: Path) -> None:
    train = tmp_path / "atlas-train-dataset-1.0.1" / "train"
    for number in (0, 11):
        names = (train / "imagesTr" / f"im{number}.nii.gz", train / f"labelsTr/lb{number}.nii.gz")
        write_pair(*names, number, LABEL, AFFINE)
    records = find_records("atlas", tmp_path)
    assert [(r.name, r.patient) for r in records] == [
        ("mr/atlas_00", "atlas_00"), ("mr/atlas_11", "atlas_11")
    ]  # fmt: skip
    assert_loads(records[1], 11)


@pytest.fixture
def hcc(tmp_path: Path) -> Path:
    """A patient with two tumours, and one without a tumour mask."""
    for patient, tumours in (("TCGA-BC-A10Y", True), ("TCGA-DD-A4NB", False)):
        exam = tmp_path / "nifti_and_segms" / patient / "02-21-2000"
        exam.mkdir(parents=True)
        for k, phase in enumerate(("art", "pre", "art_pre", "pv")):
            write_nifti(exam / f"{phase}.nii.gz", picture(k), AFFINE)
        one, other = LABEL == 2, LABEL == 2
        one[3:], other[:3] = False, False
        masks = {"rater1_liver": LABEL > 0, "rater2_liver": LABEL == 0}
        if tumours:
            masks |= {"rater1_tumor1": one, "rater1_tumor2": other, "rater2_tumor1": LABEL == 0}
        for name, mask in masks.items():
            write_nifti(exam / f"{name}.nii.gz", mask.astype(np.float32), AFFINE)
    return tmp_path


def test_liverhccseg_is_the_first_reader_on_the_arterial_phase(hcc: Path) -> None:
    sick, treated = find_records("liverhccseg", hcc)
    assert (sick.name, sick.patient) == ("mr/liverhccseg_tcga_bc_a10y", "tcga_bc_a10y")
    assert (sick.quality, treated.quality, treated.tumour) == ("full", "merged", None)
    assert_loads(sick, 0)
    assert_array_equal(treated.load()[1], LABEL > 0)


def test_liverhccseg_names_the_mask_of_another_grid(hcc: Path) -> None:
    """As one exam of the first version has it."""
    mask = hcc / "nifti_and_segms/TCGA-BC-A10Y/02-21-2000/rater1_tumor2.nii.gz"
    write_nifti(mask, np.zeros((5, 14, 12), np.uint8), AFFINE)
    with pytest.raises(InputError, match=r"rater1_tumor2.*\(5, 14, 12\)") as caught:
        find_records("liverhccseg", hcc)[0].load()
    assert caught.value.code == "label_mismatch"
    mask.with_name("rater1_liver.nii.gz").unlink()
    with pytest.raises(InputError, match=r"rater1_liver\.nii\.gz"):
        find_records("liverhccseg", hcc)[0].load()


@pytest.mark.parametrize(
    ("damage", "code"),
    [("lost label", "missing_file"), ("lost image", "missing_file"), ("shape", "label_mismatch"),
     ("moved", "label_mismatch"), ("value", "label_values"), ("half", "label_values"),
     ("negative", "label_values"), ("nan", "non_finite_voxels"), ("cut", "truncated_file")],
)  # fmt: skip
def test_broken_pairs_are_refused(tmp_path: Path, damage: str, code: str) -> None:
    array = lits_case(tmp_path, 1)
    image, label = tmp_path / "volume-1.nii", tmp_path / "segmentation-1.nii"
    odd = {"value": 3, "half": 0.5, "negative": -1}
    if damage.startswith("lost"):
        (label if damage.endswith("label") else image).unlink()
    elif damage == "shape":
        write_nifti(label, outline()[1:], grid())
    elif damage == "moved":
        affine = grid()
        affine[0, 3] += 0.3
        write_nifti(label, outline(), affine)
    elif damage in odd:
        mask = outline().astype(np.float32)
        mask[0, 0, 0] = odd[damage]
        write_nifti(label, mask, grid())
    elif damage == "nan":
        voxels = array.astype(np.float32)
        voxels[0, 0, 0] = np.nan
        write_nifti(image, voxels, grid())
    else:
        image.write_bytes(image.read_bytes()[:-100])
    (record,) = find_records("lits", tmp_path)
    with pytest.raises(InputError) as caught:
        record.load()
    assert caught.value.code == code
    assert "-1" in caught.value.message


def test_a_label_a_hair_off_is_accepted(tmp_path: Path) -> None:
    lits_case(tmp_path, 1)
    affine = grid()
    affine[0, 3] += 0.1  # of 1.5 mm
    write_nifti(tmp_path / "segmentation-1.nii", outline(), affine)
    assert find_records("lits", tmp_path)[0].load()[1].any()


@pytest.mark.parametrize("source", SOURCES)
def test_empty_and_missing_folders_are_refused(source: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="holds no case"):
        find_records(source, tmp_path)
    with pytest.raises(ConfigError, match="is not a folder"):
        find_records(source, tmp_path / "nowhere")


def test_unknown_sources_and_doubled_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="'sliver': choose one of lits, msd"):
        find_records("sliver", tmp_path)
    lits_case(tmp_path / "a", 1)
    lits_case(tmp_path / "b", 1)
    with pytest.raises(ConfigError, match="are one case"):
        find_records("lits", tmp_path)
