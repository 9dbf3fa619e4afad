"""``aqcf segment`` with the shipped model on real series, judged by dicom3tools and dcmqi."""

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from dicom_peers import dciodvfy_errors, dcmqi_mask
from dicom_phantoms import Grid, Recipe, write_series

from model.nifti import read_nifti
from model.types import MODALITIES, Modality
from training.synthetic import head_phantom

AQCF = Path(sys.executable).parent / "aqcf"
SERIES: dict[Modality, str] = {"ct": "ct_msd_liver0.zip", "mr": "mr_chaos_t1dual_10.zip"}


@dataclass(frozen=True)
class Run:
    """A finished command: what it wrote and what it said."""

    modality: Modality
    out: Path
    said: str


@pytest.fixture(scope="module", params=SERIES)
def run(
    request: pytest.FixtureRequest, data_dir: Path, tmp_path_factory: pytest.TempPathFactory
) -> Run:
    modality: Modality = request.param
    out = tmp_path_factory.mktemp(modality)
    return segment(data_dir / "dicom" / SERIES[modality], modality, out)


def segment(series: Path, modality: Modality, out: Path) -> Run:
    done = subprocess.run(
        [AQCF, "segment", series, "--modality", modality, "--out", out],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return Run(modality, out, done.stdout + done.stderr)


def test_every_result_is_written(run: Run) -> None:
    names = {"seg.dcm", "sr.dcm", "mask.nii.gz", "measurements.json", "preview.png"}
    assert {file.name for file in run.out.iterdir()} == names


def test_dicom3tools_finds_no_error(run: Run) -> None:
    assert not dciodvfy_errors(run.out / "seg.dcm")
    assert not dciodvfy_errors(run.out / "sr.dcm")


def test_dcmqi_gives_back_the_very_voxels_in_the_same_place(run: Run, tmp_path: Path) -> None:
    mask = read_nifti(run.out / "mask.nii.gz", run.modality)
    slices, rows, columns = mask.shape
    grid = SimpleNamespace(slices=slices, rows=rows, columns=columns, affine=mask.affine)
    read = dcmqi_mask(run.out / "seg.dcm", tmp_path / "dcmqi", grid)  # type: ignore[arg-type]
    assert (mask.array > 0).any()
    np.testing.assert_array_equal(read, mask.array)


def test_the_liver_has_a_plausible_volume(run: Run) -> None:
    measured = json.loads((run.out / "measurements.json").read_text("utf-8"))
    assert 700 < measured["measurements"]["liver_ml"] < 3000


def test_the_receipt_shows_what_was_chosen_and_the_phases_apart(run: Run) -> None:
    keys = {"ct": {"s1": "chosen"}, "mr": {"s1a": "usable", "s1b": "chosen"}}[run.modality]
    for key, status in keys.items():
        line = next(line for line in run.said.splitlines() if line.split()[:1] == [key])
        assert status in line


@pytest.mark.parametrize("modality", MODALITIES)
def test_a_head_is_not_evaluable_with_an_empty_and_valid_result(
    modality: Modality, tmp_path: Path
) -> None:
    """A phantom that the model was not trained on: its seed is another one."""
    head = head_phantom(np.random.default_rng(2026), modality)
    intercept = -1024 if modality == "ct" else 0
    recipe = Recipe(modality=modality.upper(), intercept=intercept)
    spacing = head.spacing_mm
    write_series(tmp_path / "in", head.array, Grid(head.shape, spacing), recipe)
    run = segment(tmp_path / "in", modality, tmp_path / "out")
    measured = json.loads((run.out / "measurements.json").read_text("utf-8"))
    assert measured["outcome"] == "not_evaluable"
    assert not read_nifti(run.out / "mask.nii.gz", modality).array.any()
    assert not dciodvfy_errors(run.out / "seg.dcm")
    assert not dciodvfy_errors(run.out / "sr.dcm")
