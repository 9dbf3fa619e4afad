import json
from pathlib import Path

import pytest
from pydantic import ValidationError

from model.errors import ModelFolderError
from model.spec import FixedIntensity, ModalitySpec, ModelSpec, load_model_folder, write_manifest


@pytest.fixture
def folder(tmp_path: Path, spec: ModelSpec) -> Path:
    (tmp_path / "ct.onnx").write_bytes(b"graph")
    write_manifest(tmp_path, spec, {"ct.onnx": tmp_path / "ct.onnx"})
    return tmp_path


def test_a_manifest_comes_back_as_written(folder: Path, spec: ModelSpec) -> None:
    loaded = load_model_folder(folder)
    assert loaded.spec == spec.model_copy(update={"files": loaded.spec.files})
    assert loaded.graph("ct") == folder / "ct.onnx"
    assert len(loaded.sha256) == 64


def test_a_changed_file_is_refused(folder: Path) -> None:
    (folder / "ct.onnx").write_bytes(b"other")
    with pytest.raises(ModelFolderError, match="SHA-256"):
        load_model_folder(folder)


def test_a_missing_file_is_refused(folder: Path) -> None:
    (folder / "ct.onnx").unlink()
    with pytest.raises(ModelFolderError, match="missing"):
        load_model_folder(folder)


def test_a_file_outside_the_folder_is_refused(folder: Path) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["files"] = {"../x": "0" * 64}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ModelFolderError, match="missing"):
        load_model_folder(folder)


@pytest.mark.parametrize("text", ["", "{}", "[1]", '{"format": 2}'])
def test_a_bad_manifest_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(ModelFolderError):
        load_model_folder(tmp_path)


def test_no_manifest_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelFolderError, match="no manifest"):
        load_model_folder(tmp_path)


@pytest.mark.parametrize(
    ("patch", "orientation"),
    [((32, 48, 40), "RAS"), ((16, 16, 16), "RAS"), ((32, 48, 48), "RLS"), ((32, 48, 48), "RA")],
)
def test_impossible_views_are_refused(patch: tuple[int, int, int], orientation: str) -> None:
    with pytest.raises(ValidationError):
        ModalitySpec(
            orientation=orientation,
            spacing_mm=(1, 1, 1),
            intensity=FixedIntensity(lo=0, hi=1),
            patch=patch,
        )


def test_an_unknown_default_profile_is_refused(spec: ModelSpec) -> None:
    with pytest.raises(ValidationError, match="default profile"):
        ModelSpec.model_validate({**spec.model_dump(), "default_profile": "none"})
