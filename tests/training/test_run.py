"""fit, evaluate and export through the command line, on a miniature archive."""

import csv
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from typer.testing import CliRunner

from model.nifti import write_nifti
from model.spec import load_model_folder
from training import cli
from training.synthetic import phantom

PATCH = [16, 32, 32]
CASES = [
    ("ct/one", "ct", "a", "full", "develop"),
    ("ct/two", "ct", "b", "full", "develop"),
    ("mr/one", "mr", "c", "healthy", "develop"),
    ("mr/two", "mr", "d", "healthy", "develop"),
    ("ct/demo", "ct", "e", "pseudo", "test"),
]


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("archive")
    rows = []
    for seed, (name, modality, patient, labels, role) in enumerate(CASES):
        rng = np.random.default_rng(seed)
        volume, label = phantom(modality, rng, shape_zyx=(24, 48, 56), spacing_mm=(9.0, 6.0, 7.0))  # type: ignore[arg-type]
        folder = root / name
        folder.mkdir(parents=True)
        write_nifti(folder / "image.nii.gz", volume.array, volume.affine)
        write_nifti(folder / "label.nii.gz", label, volume.affine)
        rows.append(
            {"case": name, "modality": modality, "patient": patient, "labels": labels,
             "licence": "CC-BY-ND-4.0" if name == "ct/two" else "CC0-1.0", "role": role}
        )  # fmt: skip
    (root / "cases.json").write_text(json.dumps(rows), "utf-8")
    return root


@pytest.fixture(scope="module")
def config(archive: Path) -> Path:
    modality = {"orientation": "RAS", "spacing_mm": [9.0, 6.0, 6.0], "patch": PATCH}
    values = {
        "name": "tiny",
        "data": {"root": str(archive), "validate_cases": ["ct/two", "mr/two"]},
        "network": {"widths": [1, 2, 2, 2, 4], "bottleneck": 4},
        "modalities": {
            "ct": modality | {"intensity": {"kind": "fixed", "lo": -16, "hi": 176}},
            "mr": modality | {"intensity": {"kind": "percentile", "lo": 1, "hi": 99}},
        },
        "profiles": {"balanced": {"overlap": 0.25}},
        "postprocess": {"ct": {"min_liver_ml": 0}, "mr": {"min_liver_ml": 0}},
        "validation_profile": "balanced",
        "optimiser": {"lr": 1e-3, "ema": 0.9},
        "epochs": 2,
        "steps_per_epoch": 3,
        "accelerator": "cpu",
    }
    path = archive / "tiny.yaml"
    path.write_text(yaml.safe_dump(values), "utf-8")
    return path


@pytest.fixture(scope="module")
def run(archive: Path, config: Path) -> Path:
    """A trained and scored run."""
    folder = archive / "runs" / "tiny"
    for arguments in (["fit", str(config), "--run", str(folder)], ["evaluate", str(folder)]):
        result = CliRunner().invoke(cli.app, arguments, catch_exceptions=False)
        assert result.exit_code == 0, result.output
    return folder


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def test_fit_leaves_weights_curves_and_validation_rows(run: Path) -> None:
    assert {"best.safetensors", "last.safetensors", "curves.png", "state.pt"} <= {
        file.name for file in run.iterdir()
    }
    scored = rows(run / "validation.csv")
    assert [row["case"] for row in scored] == ["ct/two", "mr/two"] * 2
    assert {row["step"] for row in scored} == {"3", "6"}


def test_scores_cover_held_out_and_test_cases_and_nothing_trained_on(run: Path) -> None:
    scored = {row["case"]: row for row in rows(run / "scores.csv")}
    assert set(scored) == {"ct/two", "mr/two", "ct/demo"}
    assert scored["mr/two"]["tumour_dice"] == ""
    assert 0 <= float(scored["ct/two"]["liver_dice"]) <= 1
    assert (run / "pictures" / "ct_two.png").stat().st_size > 1000


def test_export_writes_a_model_that_loads_with_a_card(run: Path, tmp_path: Path) -> None:
    notes = tmp_path / "notes.md"
    notes.write_text("## Tried\n\nNothing else.", "utf-8")
    target = tmp_path / "zoo" / "tiny"
    arguments = ["export", str(run), "--to", str(target), "--notes", str(notes)]
    result = CliRunner().invoke(cli.app, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    spec = load_model_folder(target).spec
    assert set(spec.scores) == {"ct/two", "mr/two", "ct/demo"}
    assert [case["case"] for case in spec.training["cases"]] == ["ct/one", "mr/one"]
    card = (target / "README.md").read_text("utf-8")
    assert "Research use only" in card
    assert "| ct/two | full |" in card
    shown = {file.name for file in (target / "images").iterdir()}
    assert shown == {"ct_demo.png", "mr_two.png", "curves.png"}  # the others may not be published
    assert "Nothing else." in card


def test_fit_again_has_nothing_left_to_do(run: Path, config: Path) -> None:
    before = (run / "last.safetensors").read_bytes()
    result = CliRunner().invoke(cli.app, ["fit", str(config), "--run", str(run)])
    assert result.exit_code == 0, result.output
    assert (run / "last.safetensors").read_bytes() == before


def test_a_wrong_configuration_exits_2_and_names_the_value(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "wrong.yaml"
    path.write_text("name: x\nepochs: many\n", "utf-8")
    monkeypatch.setattr(sys, "argv", ["aqcf-train", "fit", str(path)])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    assert stopped.value.code == 2
    assert "many" in capsys.readouterr().err
