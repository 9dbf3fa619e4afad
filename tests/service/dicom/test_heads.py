"""The identity of an instance, from the start of its file."""

import zipfile
from pathlib import Path

import pytest
from dicom_phantoms import Grid, Recipe, body, deflate_bomb, write, write_series
from pydicom import Dataset
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    RLELossless,
)

from service.dicom.header import read_record
from service.dicom.heads import UnreadableHeadError, read_head

GRID = Grid((3, 8, 8))
SYNTAXES = (
    ImplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    DeflatedExplicitVRLittleEndian,
    RLELossless,
)


def one(folder: Path, **options: object) -> Path:
    return write_series(folder, body(GRID), GRID, Recipe(**options))[0]  # type: ignore[arg-type]


@pytest.mark.parametrize("syntax", SYNTAXES)
def test_the_identity_in_every_encoding(tmp_path: Path, syntax: str) -> None:
    head = read_head(one(tmp_path, syntax=syntax))
    assert head.sop_class_uid == "1.2.840.10008.5.1.4.1.1.2"
    assert head.sop_instance_uid.endswith(".1.1")
    assert (head.series_uid[-2:], head.study_uid[-2:]) == (".1", ".0")
    assert (head.modality, head.manufacturer) == ("CT", "Phantom")


@pytest.mark.parametrize("syntax", SYNTAXES)
def test_what_the_header_lacks_is_taken_from_beside_it(tmp_path: Path, syntax: str) -> None:
    file = tmp_path / "file"
    dataset = Dataset()
    dataset.SOPClassUID, dataset.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.4", "1.2.3"
    dataset.SeriesInstanceUID = "1.2.4"
    write(dataset, file, ExplicitVRLittleEndian if syntax == RLELossless else syntax)
    data = file.read_bytes()
    start = 144 + int.from_bytes(data[140:144], "little")
    assert data[start:]
    head = read_head(file)
    assert (head.sop_instance_uid, head.study_uid) == ("1.2.3", "1.2.4")


def test_real_files_that_name_no_series_have_no_identity(tmp_path: Path, data_dir: Path) -> None:
    with zipfile.ZipFile(data_dir / "dicom" / "ct_totalsegmentator_20slices_j2k.zip") as packed:
        name = next(name for name in packed.namelist() if not name.endswith("/"))
        file = Path(packed.extract(name, tmp_path))
    with pytest.raises(UnreadableHeadError):
        read_head(file)


def test_a_deflate_bomb_costs_no_memory(tmp_path: Path) -> None:
    with pytest.raises(UnreadableHeadError):
        read_head(deflate_bomb(tmp_path / "bomb", 200))


def test_what_breaks_off_is_unreadable(tmp_path: Path) -> None:
    data = one(tmp_path / "in").read_bytes()
    for end in (0, 100, 140, 300, 500):
        (tmp_path / "cut").write_bytes(data[:end])
        with pytest.raises(UnreadableHeadError):
            read_head(tmp_path / "cut")


@pytest.mark.parametrize("uid", ["x" * 65, "1.2\n3", "1 2"])
def test_an_identity_that_is_none_is_unreadable(tmp_path: Path, uid: str) -> None:
    dataset = Dataset()
    dataset.SOPClassUID, dataset.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.2", "1.2.3"
    write(dataset, tmp_path / "file")
    data = (tmp_path / "file").read_bytes()
    value = uid.encode() + b" " * (len(uid) % 2)
    series = b"\x20\x00\x0e\x00UI" + len(value).to_bytes(2, "little") + value
    (tmp_path / "file").write_bytes(data + series)
    with pytest.raises(UnreadableHeadError):
        read_head(tmp_path / "file")


def test_a_sequence_that_breaks_off_is_damage_and_no_failure_of_the_disk(tmp_path: Path) -> None:
    file = one(tmp_path)
    data = file.read_bytes()
    opened = bytes.fromhex("08004011") + b"SQ\0\0" + b"\xff" * 4  # (0008,1140) has no end
    at = data.index(bytes.fromhex("10001000"))
    file.write_bytes(data[:at] + opened)
    with pytest.raises(UnreadableHeadError):
        read_head(file)
    assert read_record(file, 10**6).problem == "invalid_dicom"
    with pytest.raises(FileNotFoundError):
        read_head(tmp_path / "nothing")
    with pytest.raises(FileNotFoundError):
        read_record(tmp_path / "nothing", 10**6)
