"""The acceptance model takes phantoms, and nothing else ever reaches it."""

import shutil
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from pydicom import Dataset, dcmread

from service import execute
from service.acceptance.phantoms import chosen
from service.acceptance.write import Run, write
from service.container import Container
from service.domain import ArtifactName, SubmitOptions
from service.errors import PhantomsOnlyError
from service.intake import submit
from service.phantoms import DEVICE, NOTE, PATIENT_ID, marked
from service.registry import ModelRegistry
from service.uploads import Upload

AT = datetime(2026, 1, 5, 8, 0, tzinfo=UTC)
Made = Callable[[str], tuple[Path, ...]]


@pytest.fixture
def phantom(tmp_path: Path) -> Made:
    def make(name: str) -> tuple[Path, ...]:
        [wanted] = chosen([name])
        return write(wanted, Run("a", AT), 1, tmp_path / name).files

    return make


def submitted(container: Container, files: Any, **options: Any) -> Any:
    return submit(container, Upload(tuple(files)), SubmitOptions("ct", **options))


@pytest.mark.parametrize("asked", [None, "tiny", "acceptance"])
def test_a_phantom_gets_its_own_model_whatever_is_asked_for(
    container: Container, phantom: Made, asked: str | None
) -> None:
    job = submitted(container, phantom("ct-axial"), model=asked, profile="balanced")
    assert (job.model_id, job.profile) == ("acceptance", "balanced")
    assert NOTE in job.notes


def test_its_results_say_that_they_are_of_no_patient(container: Container, phantom: Made) -> None:
    job = submitted(container, phantom("ct-axial"))
    execute.run(container, job.id)
    for name in (ArtifactName.SEG, ArtifactName.SR):
        result = dcmread(container.artifacts.path(job.id, name))
        assert result.SeriesDescription.startswith("ACCEPTANCE TEST, no patient")
        assert result.PatientName == "AQCF^ACCEPTANCE"


def half_marked(dataset: Dataset, index: int) -> None:
    dataset.PatientID = PATIENT_ID
    if index:
        dataset.ManufacturerModelName = DEVICE


def by_name(dataset: Dataset, index: int) -> None:
    dataset.PatientName, dataset.PatientID = "AQCF^ACCEPTANCE", PATIENT_ID


@pytest.mark.parametrize("edit", [None, half_marked, by_name])
def test_no_patient_gets_the_acceptance_model(
    container: Container, made: Any, tmp_path: Path, edit: Any
) -> None:
    files = made.series(tmp_path / "patient", made.phantom(), edit=edit)
    with pytest.raises(PhantomsOnlyError):
        submitted(container, files, model="acceptance")
    assert submitted(container, files).model_id == "tiny"
    assert not container.jobs.page().jobs[1:]


def test_nor_does_a_nifti(container: Container, made: Any, tmp_path: Path) -> None:
    with pytest.raises(PhantomsOnlyError):
        submitted(container, [made.nifti(tmp_path / "a.nii")], model="acceptance")


def test_an_archive_may_put_something_before_the_patient_id(phantom: Made) -> None:
    files = phantom("ct-enhanced")
    dataset = dcmread(files[0])
    dataset.PatientID = f"HOSP-{PATIENT_ID}"
    dataset.save_as(files[0])
    assert marked(files)
    assert not marked(())


def test_the_model_is_in_no_list_and_its_id_is_reserved(
    container: Container, models_dir: Path, tmp_path: Path
) -> None:
    assert [folder.spec.id for folder in container.models.all()] == ["tiny"]
    own = tmp_path / "models"
    shutil.copytree(container.models.acceptance().path, own / "mine")
    shutil.copytree(models_dir / "tiny", own / "tiny")
    registry = ModelRegistry(own, "tiny")
    assert [broken.id for broken in registry.broken()] == ["mine"]
    assert registry.find("acceptance", "mr").path != own / "mine"
