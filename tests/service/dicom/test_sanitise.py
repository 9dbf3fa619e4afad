"""No header loses a result."""

from pathlib import Path

import pytest
from dicom_peers import dciodvfy_errors
from dicom_phantoms import Grid, Recipe, body, labels, write_series
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom import dcmread
from pydicom.dataset import Dataset

from model.measure import measure
from model.spec import LIVER_LABEL, TUMOUR_LABEL
from service.dicom.pixels import load
from service.dicom.proof import prove
from service.dicom.sanitise import LENGTHS, PATTERNS, canonical_sources, clean
from service.dicom.seg import Algorithm, build_seg, to_bytes
from service.dicom.series import choose, scan
from service.dicom.sr import build_sr
from service.dicom.uids import derived_uid, is_uid

GRID = Grid()
VALUES = body(GRID)
LABELS = (LIVER_LABEL, TUMOUR_LABEL)
ALGORITHM = Algorithm("small", "1")


def results(paths: list[Path], folder: Path) -> tuple[Dataset, Dataset, tuple[str, ...]]:
    """SEG and SR of a series, valid and proved, and the notes on its headers."""
    case = load(choose(scan(paths, "ct"))[0])
    mask = labels(VALUES)
    sources = canonical_sources(case.series, "key")
    seg = build_seg(case.series, mask, LABELS, ALGORITHM, "key", sources)
    sr = build_sr(case.series, seg, measure(mask, case.volume), LABELS, ALGORITHM, "key", sources)
    read = []
    for name, dataset in (("seg", seg), ("sr", sr)):
        path = folder / f"{name}.dcm"
        path.write_bytes(to_bytes(dataset))
        assert not dciodvfy_errors(path)
        read.append(dcmread(path))
    prove(folder / "seg.dcm", case.series, mask)
    return read[0], read[1], sources.notes


BAD = {
    "sex": {"PatientSex": "W"},
    "birth date": {"PatientBirthDate": "1970.1.1"},
    "times": {"StudyTime": "25:61", "StudyDate": "20201301"},
    "long ids": {"StudyID": "x" * 40, "AccessionNumber": "y" * 40, "PatientID": "z" * 100},
    "name": {"PatientName": "A^B^C^D^E^F^G=x=y=z=w"},
    "age and weight": {"PatientAge": "7Y", "PatientWeight": "heavy", "PatientSize": "1,80"},
    "charset": {"SpecificCharacterSet": "ISO_IR 999", "PatientName": "M\xfcller^J\xf6rg"},
    "trial": {"ClinicalTrialSponsorName": "s", "ClinicalTrialProtocolID": "p"},
    "uid": {"StudyInstanceUID": "1.2.abc", "FrameOfReferenceUID": "1..2"},
    "anonymised": {"PatientIdentityRemoved": "YES"},
    "lossy": {"LossyImageCompression": "01"},
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", BAD)
def test_invalid_values(tmp_path: Path, name: str) -> None:
    def edit(dataset: Dataset, index: int) -> None:
        for keyword, value in BAD[name].items():
            if keyword == "SpecificCharacterSet":
                continue
            setattr(dataset, keyword, value if keyword == "PatientName" else "")
            if keyword != "PatientName":
                dataset[keyword]._value = value

    paths = write_series(tmp_path / "in", VALUES, GRID, Recipe(edit=edit))
    if name == "charset":
        for path in paths:
            path.write_bytes(path.read_bytes().replace(b"ISO_IR 100", b"ISO_IR 999"))
    seg, sr, _ = results(paths, tmp_path)
    assert seg.StudyInstanceUID == sr.StudyInstanceUID
    assert seg.SpecificCharacterSet == "ISO_IR 192"
    if name == "charset":
        assert str(seg.PatientName) == "M\xfcller^J\xf6rg"
    if name == "sex":
        assert seg.PatientSex == ""


TYPE_2 = (
    "PatientName",
    "PatientID",
    "PatientBirthDate",
    "PatientSex",
    "StudyDate",
    "StudyTime",
    "StudyID",
    "AccessionNumber",
    "ReferringPhysicianName",
    "Manufacturer",
    "SliceThickness",
    "SpecificCharacterSet",
    "SeriesNumber",
)


def test_everything_that_can_lack_lacks(tmp_path: Path) -> None:
    def edit(dataset: Dataset, index: int) -> None:
        for keyword in (*TYPE_2, "StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID"):
            del dataset[keyword]

    paths = write_series(tmp_path / "in", VALUES, GRID, Recipe(edit=edit))
    seg, _, notes = results(paths, tmp_path)
    assert is_uid(seg.StudyInstanceUID)
    assert sum("made up" in note for note in notes) == 3
    again, _, _ = results(paths, tmp_path)
    assert again.StudyInstanceUID == seg.StudyInstanceUID


def test_valid_identity_is_kept(tmp_path: Path) -> None:
    seg, sr, notes = results(write_series(tmp_path / "in", VALUES, GRID), tmp_path)
    for dataset in (seg, sr):
        assert dataset.PatientName == "Canary^Test"
        assert dataset.PatientID == "CANARY-1"
        assert dataset.PatientSex == "F"
        assert dataset.StudyDate == "20200101"
        assert dataset.AccessionNumber == "A1"
    assert notes == ()


def test_notes_hold_no_values(tmp_path: Path) -> None:
    def edit(dataset: Dataset, index: int) -> None:
        dataset["PatientSex"]._value = "CANARY"

    paths = write_series(tmp_path / "in", VALUES, GRID, Recipe(edit=edit))
    _, _, notes = results(paths, tmp_path)
    assert notes
    assert "CANARY" not in " ".join(notes)


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=200), st.sampled_from([*LENGTHS, *PATTERNS, "DA", "PN"]))
def test_clean_values_are_always_valid(value: str, vr: str) -> None:
    cleaned = clean(value, vr)
    assert clean(cleaned, vr) == cleaned
    assert len(cleaned) <= (194 if vr == "PN" else 64)
    assert not set(cleaned) & {"\\", "\n", "\0"}


@settings(max_examples=30, deadline=None)
@given(st.text(max_size=40), st.text(max_size=40))
def test_derived_uids_are_valid_and_stable(key: str, role: str) -> None:
    uid = derived_uid(key, role)
    assert is_uid(uid)
    assert uid == derived_uid(key, role)
    assert uid != derived_uid(key, role + "x")
