"""The command line: files, exit codes, and what it says on which stream."""

import json
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread
from servers import free_port
from typer.testing import CliRunner

from service.cli import app
from service.settings import Settings
from service.storage.database import open_database
from service.storage.keys import KeyStore

pytestmark = pytest.mark.usefixtures("installed")


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch, models_dir: Path, tmp_path: Path) -> None:
    for name, value in {
        "MODELS_DIR": models_dir,
        "DEFAULT_MODEL": "tiny",
        "ENGINE": "onnxruntime",
        "THREADS": 1,
        "MIN_FREE_BYTES": 0,
        "STATE_DIR": tmp_path / "state",
    }.items():
        monkeypatch.setenv(f"AQCF_{name}", str(value))


def aqcf(*arguments: object) -> Any:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def segment(out: Path, *inputs: Path, modality: str = "ct") -> Any:
    return aqcf("segment", *inputs, "--modality", modality, "--out", out)


def names(folder: Path) -> set[str]:
    return {file.name for file in folder.iterdir()}


FOR_ALL = {"mask.nii.gz", "measurements.json", "preview.png"}


def test_a_zip_a_folder_and_files_give_the_same(tmp_path: Path, ct_zip: Path) -> None:
    files = sorted((tmp_path / "series").iterdir())
    results = []
    for number, inputs in enumerate([(ct_zip,), (tmp_path / "series",), files]):
        out = tmp_path / f"out{number}"
        result = segment(out, *inputs)
        assert result.exit_code == 0, result.stderr
        assert "lesion found" in result.stdout
        assert "chosen" in result.stdout
        assert names(out) == FOR_ALL | {"seg.dcm", "sr.dcm"}
        results.append((out / "mask.nii.gz").read_bytes())
    assert len(set(results)) == 1
    assert dcmread(tmp_path / "out0" / "seg.dcm").Modality == "SEG"


def test_other_forms(tmp_path: Path, ct_zip: Path, made: Any) -> None:
    forms = ("--also", "capture, rtstruct,labelmap,deflated,viewer")
    out = tmp_path / "out"
    result = aqcf("segment", ct_zip, "--modality", "ct", "--out", out, *forms)
    assert result.exit_code == 0, result.stderr
    made_too = {"capture.zip", "rtstruct.dcm", "seg_labelmap.dcm", "seg_deflated.dcm"}
    assert names(out) == FOR_ALL | {"seg.dcm", "sr.dcm", "sr_viewer.dcm"} | made_too
    assert dcmread(out / "rtstruct.dcm").Modality == "RTSTRUCT"
    nifti = made.nifti(tmp_path / "a.nii.gz")
    result = aqcf("segment", nifti, "--modality", "ct", "--out", tmp_path / "n", *forms)
    assert "no DICOM forms" in result.stdout
    assert names(tmp_path / "n") == FOR_ALL
    wrong = aqcf("segment", nifti, "--modality", "ct", "--out", out, "--also", "jpeg")
    assert wrong.exit_code == 2
    assert "rtstruct" in wrong.stderr


def test_a_nifti(tmp_path: Path, made: Any) -> None:
    result = segment(tmp_path / "out", made.nifti(tmp_path / "a.nii.gz"))
    assert result.exit_code == 0
    assert names(tmp_path / "out") == FOR_ALL
    assert json.loads((tmp_path / "out" / "measurements.json").read_text())["measurements"]


def test_bad_input_ends_with_2_and_its_code(tmp_path: Path, ct_zip: Path) -> None:
    wrong = segment(tmp_path / "out", ct_zip, modality="mr")
    assert wrong.exit_code == 2
    assert "wrong_modality" in wrong.stderr
    assert "rejected" in wrong.stderr
    assert not (tmp_path / "out").exists()
    (tmp_path / "empty").mkdir()
    assert segment(tmp_path / "out", tmp_path / "empty").exit_code == 2
    assert aqcf("segment", ct_zip, "--modality", "pet", "--out", tmp_path).exit_code == 2
    named = aqcf("segment", ct_zip, "--modality", "ct", "--out", tmp_path, "--model", "huge")
    assert named.exit_code == 2
    assert "unknown_model" in named.stderr


def test_a_failure_ends_with_1(
    tmp_path: Path, ct_zip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AQCF_MODELS_DIR", str(tmp_path))
    missing = segment(tmp_path / "out", ct_zip)
    assert missing.exit_code == 1
    assert "model_unavailable" in missing.stderr
    monkeypatch.setenv("AQCF_PORT", "many")
    wrong = aqcf("models")
    assert wrong.exit_code == 1
    assert "AQCF_PORT" in wrong.stderr


def test_addresses_that_are_none_are_named_and_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AQCF_DATABASE_URL", "AQCF_REDIS_URL"):
        monkeypatch.setenv(name, "host:s3cret")
        wrong = aqcf("keys", "list")
        assert wrong.exit_code == 1
        assert name in wrong.stderr
        assert "s3cret" not in wrong.stderr
    assert wrong.stderr == "error invalid_config: check AQCF_DATABASE_URL, AQCF_REDIS_URL\n"


def test_limits_that_do_not_fit_each_other_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AQCF_JOB_HARD_LIMIT_S", "9000")
    wrong = aqcf("models")
    assert wrong.exit_code == 1
    assert "invalid_config: check AQCF_JOB_SOFT_LIMIT_S <= AQCF_JOB_HARD_LIMIT_S" in wrong.stderr


@pytest.mark.parametrize(
    "command", ["keys list", "audit export", "deliveries list", "deliveries retry 0a"]
)
def test_a_ledger_that_is_away_is_told_in_one_line(
    command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AQCF_DATABASE_URL", f"postgresql+psycopg://u@127.0.0.1:{free_port()}/x")
    away = aqcf(*command.split())
    assert away.exit_code == 1
    assert away.stderr.startswith("error ledger_unavailable: the ledger cannot be opened")
    assert away.stderr.count("\n") == 1


def test_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, made: Any) -> None:
    listed = aqcf("models")
    assert listed.exit_code == 0
    assert "tiny (default)" in listed.stdout

    folder = made.model(tmp_path / "models" / "bad")
    (folder / "ct.onnx").write_bytes(b"changed")
    monkeypatch.setenv("AQCF_MODELS_DIR", str(tmp_path / "models"))
    missing = aqcf("models")
    assert missing.exit_code == 1
    assert "no model is installed" in missing.stdout
    assert "differs from the manifest" in missing.stderr
    assert "'tiny' is not installed" in missing.stderr


def test_an_id_that_two_folders_have_names_neither(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, made: Any, ct_zip: Path
) -> None:
    folder = made.model(tmp_path / "models" / "tiny")
    shutil.copytree(folder, tmp_path / "models" / "before")
    monkeypatch.setenv("AQCF_MODELS_DIR", str(tmp_path / "models"))
    listed = aqcf("models")
    assert listed.exit_code == 1
    assert "the id tiny is also in before; keep one" in listed.stderr
    assert "the id tiny is also in tiny; keep one" in listed.stderr
    refused = segment(tmp_path / "out", ct_zip)
    assert refused.exit_code == 1
    assert "unusable, `aqcf models` says why: before, tiny" in refused.stderr


def test_doctor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    well = aqcf("doctor")
    assert well.exit_code == 0, well.stdout
    for word in ("engine onnxruntime", "codec RLE Lossless", "model tiny", "disk"):
        assert re.search(rf"^OK +{word}", well.stdout, re.MULTILINE)
    assert "FAIL" not in well.stdout
    monkeypatch.setenv("AQCF_MODELS_DIR", str(tmp_path))
    ill = aqcf("doctor")
    assert ill.exit_code == 1
    assert "FAIL model tiny" in ill.stdout


def test_doctor_looks_at_the_fullest_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = Path("/dev/shm")  # noqa: S108  (a disk of its own)
    assert other.stat().st_dev != tmp_path.stat().st_dev, "needs two disks"
    fullest = min((tmp_path, other), key=lambda place: shutil.disk_usage(place).free)
    for state, artifacts in ((tmp_path, other), (other, tmp_path)):
        monkeypatch.setenv("AQCF_STATE_DIR", str(state / "s"))
        monkeypatch.setenv("AQCF_ARTIFACTS_URL", f"file://{artifacts}/a")
        (line,) = re.findall(r"^\w+ +disk .*$", aqcf("doctor").stdout, re.MULTILINE)
        assert f"free in {fullest}/" in line


def test_keys(tmp_path: Path) -> None:
    made = aqcf("keys", "create", "--scope", "read", "--name", "reading room")
    text = made.stdout.strip()
    database = open_database(Settings().ledger_url)
    key = KeyStore(database).verify(text)
    assert key is not None
    assert key.scopes == {"read"}
    (line,) = aqcf("keys", "list").stdout.splitlines()
    assert line.split() == [
        key.id,
        "active",
        f"{key.created_at:%Y-%m-%d}",
        "read",
        "reading",
        "room",
    ]
    assert aqcf("keys", "revoke", key.id).exit_code == 0
    assert KeyStore(database).verify(text) is None
    database.close()
    assert aqcf("keys", "revoke", "nobody").exit_code == 1
    unknown = aqcf("keys", "create", "--scope", "everything")
    assert unknown.exit_code == 1
    assert "unknown_scope" in unknown.stderr
    for name in ("x" * 65, "two\nlines"):
        refused = aqcf("keys", "create", "--name", name)
        assert refused.exit_code == 1
        assert "invalid_config" in refused.stderr


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys; from service.cli import app; "
        "heavy = {'numpy', 'pydicom', 'sqlalchemy', 'fastapi', 'openvino', 'onnxruntime', 'torch'};"
        "print(sorted(heavy & set(sys.modules)))"
    )
    start = time.perf_counter()
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
    assert time.perf_counter() - start < 5
    for command in ("segment", "serve", "models", "doctor", "keys"):
        assert aqcf(command, "--help").exit_code == 0
