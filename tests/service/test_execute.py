"""Jobs, run by the real steps with a tiny model; engines replaced only at our own Protocol."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom import dcmread
from sqlalchemy.exc import OperationalError

from model.backends import open_backend
from model.errors import BackendError, OutOfMemoryError
from model.nifti import read_nifti
from model.types import Batch
from service import execute, images, intake, sweep
from service.container import Container
from service.domain import ArtifactName, Job, Outcome, Status, SubmitOptions
from service.errors import NotFoundError
from service.storage.jobs import JobStore
from service.uploads import Upload

CT = SubmitOptions("ct")


class FakeBackend:
    """Calls ``before`` ahead of each batch, then answers as the real engine does."""

    name, engine, precision = "fake", "fake", "f32"

    def __init__(self, container: Container, before: Callable[[], None]) -> None:
        folder = container.models.find(None, "ct")
        self._real = open_backend(folder, "ct", "onnxruntime", threads=1)
        self._before = before

    def logits(self, batch: Batch) -> Batch:
        self._before()
        return self._real.logits(batch)


def with_engine(container: Container, before: Callable[[], None]) -> Container:
    backend = FakeBackend(container, before)
    return replace(container, open_backend=lambda *_: backend)


def raising(error: BaseException) -> Callable[[], None]:
    def act() -> None:
        raise error

    return act


@pytest.fixture
def job(container: Container, ct_zip: Path) -> Job:
    return intake.submit(container, Upload((ct_zip,)), CT)


def test_dicom_all_the_way(container: Container, job: Job, made: Any) -> None:
    execute.run(container, job.id)

    done = container.jobs.require(job.id)
    assert (done.status, done.outcome, done.error) == (
        Status.SUCCEEDED,
        Outcome.LESION_FOUND,
        None,
    )
    assert done.measurements is not None
    assert len(done.measurements["lesions"]) == 1
    assert done.measurements["tumour_ml"] == pytest.approx(4 * 6 * 8 * 0.008, rel=0.01)
    assert list(done.seconds) == [
        "read", "prepare", "wait", "inference", "restore", "postprocess", "measure", "seg", "sr",
        "store", "load_model",
    ]  # fmt: skip
    assert done.proof is not None
    found = {segment["number"]: segment["voxels_found"] for segment in done.proof["segments"]}

    mask = read_nifti(container.artifacts.path(job.id, ArtifactName.MASK), "ct").array
    expected = made.phantom()
    assert np.array_equal(mask == 2, expected == 180)
    assert found == {1: np.count_nonzero(mask == 1), 2: np.count_nonzero(mask == 2)}
    seg = dcmread(container.artifacts.path(job.id, ArtifactName.SEG))
    assert seg.Modality == "SEG"
    assert dcmread(container.artifacts.path(job.id, ArtifactName.SR)).Modality == "SR"
    summary = json.loads(container.artifacts.path(job.id, ArtifactName.MEASUREMENTS).read_text())
    assert summary["outcome"] == "lesion_found"
    assert {artifact.name for artifact in done.artifacts} == {
        ArtifactName.SEG,
        ArtifactName.SR,
        ArtifactName.MASK,
        ArtifactName.MEASUREMENTS,
        ArtifactName.PREVIEW,
    }  # the other forms are made when somebody asks for them
    assert not list(container.artifacts.staging.iterdir())


def test_a_retry_makes_the_same_uids(container: Container, ct_zip: Path, job: Job) -> None:
    execute.run(container, job.id)
    seg = container.artifacts.path(job.id, ArtifactName.SEG)
    first = dcmread(seg)
    sweep.purge(container, job.id)
    again = intake.submit(container, Upload((ct_zip,)), CT)
    execute.run(container, again.id)
    second = dcmread(container.artifacts.path(again.id, ArtifactName.SEG))
    assert again.id != job.id
    assert first.SOPInstanceUID == second.SOPInstanceUID
    assert first.SeriesInstanceUID == second.SeriesInstanceUID


def test_nifti_has_no_dicom(tmp_path: Path, container: Container, made: Any) -> None:
    upload = Upload((made.nifti(tmp_path / "a.nii.gz"),))
    job = intake.submit(container, upload, CT)
    execute.run(container, job.id)
    done = container.jobs.require(job.id)
    assert (done.status, done.proof) == (Status.SUCCEEDED, None)
    assert done.artifact(ArtifactName.MASK) is not None
    assert done.artifact(ArtifactName.SEG) is None
    with pytest.raises(NotFoundError):
        container.artifacts.path(job.id, ArtifactName.SEG)


def test_the_image_is_made_when_asked_for(container: Container, job: Job, made: Any) -> None:
    path = images.image_path(container, job)
    assert path == images.image_path(container, job)
    assert np.array_equal(read_nifti(path, "ct").array, np.maximum(made.phantom(), -1024))


def test_no_liver_is_a_result(tmp_path: Path, container: Container, made: Any) -> None:
    head = np.minimum(made.phantom(), 20)
    job = intake.submit(container, Upload(tuple(made.series(tmp_path / "head", head))), CT)
    execute.run(container, job.id)
    done = container.jobs.require(job.id)
    assert (done.status, done.outcome) == (Status.SUCCEEDED, Outcome.NOT_EVALUABLE)
    seg = dcmread(container.artifacts.path(job.id, ArtifactName.SEG))
    assert not np.frombuffer(seg.PixelData, np.uint8).any()
    assert (container.artifacts.path(job.id, ArtifactName.SR)).is_file()


def test_liver_without_tumour(tmp_path: Path, container: Container, made: Any) -> None:
    clean = np.minimum(made.phantom(), 120)
    job = intake.submit(container, Upload(tuple(made.series(tmp_path / "clean", clean))), CT)
    execute.run(container, job.id)
    assert container.jobs.require(job.id).outcome is Outcome.NO_LESION


def test_a_job_runs_once(container: Container, job: Job) -> None:
    execute.run(container, job.id)
    before = container.jobs.require(job.id)
    execute.run(container, job.id)
    execute.run(container, "no such job")
    assert container.jobs.require(job.id) == before


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (BackendError("the engine broke"), "backend_failed"),
        (OutOfMemoryError("too big"), "out_of_memory"),
        (MemoryError(), "out_of_memory"),
        (RuntimeError("Doe^Jane said something secret"), "internal_error"),
    ],
)
def test_failures_have_codes(container: Container, job: Job, error: Exception, code: str) -> None:
    execute.run(with_engine(container, raising(error)), job.id)
    failed = container.jobs.require(job.id)
    assert failed.status is Status.FAILED
    assert failed.error is not None
    assert failed.error.code == code
    assert "Doe" not in failed.error.message
    assert failed.artifacts == ()
    assert container.artifacts.job_ids() == ()


def test_a_failed_job_may_be_submitted_again(container: Container, ct_zip: Path, job: Job) -> None:
    execute.run(with_engine(container, raising(BackendError("x"))), job.id)
    again = intake.submit(container, Upload((ct_zip,)), CT)
    execute.run(container, again.id)
    assert container.jobs.require(again.id).status is Status.SUCCEEDED


def test_cancelled_while_running(container: Container, job: Job) -> None:
    def cancel() -> None:
        if not container.jobs.require(job.id).cancel_requested:
            container.jobs.cancel(job.id)

    execute.run(with_engine(container, cancel), job.id)
    assert container.jobs.require(job.id).status is Status.CANCELLED
    assert container.artifacts.job_ids() == ()


def test_deleted_while_running(container: Container, job: Job) -> None:
    engine = with_engine(container, lambda: _remove_once(container, job.id))
    execute.run(engine, job.id)
    assert container.jobs.get(job.id) is None
    assert container.artifacts.job_ids() == ()
    assert container.artifacts.input_keys() == ()


def test_a_stopping_process_gives_its_job_back(container: Container, job: Job) -> None:
    execute.run(with_engine(container, container.queue.stop), job.id)
    again = container.jobs.require(job.id)
    assert (again.status, again.deaths) == (Status.QUEUED, 0)


def test_a_result_that_the_ledger_cannot_take_is_no_failure(container: Container, job: Job) -> None:
    """PostgreSQL goes away as a job ends, and is back before anything else is written."""

    class Away(JobStore):
        def succeed(self, *_: object) -> bool:
            raise OperationalError("UPDATE", {}, Exception("the server closed the connection"))

    execute.run(replace(container, jobs=Away(container.database)), job.id)
    left = container.jobs.require(job.id)
    assert (left.status, left.deaths, left.error) == (Status.QUEUED, 0, None)
    execute.run(container, job.id)
    assert container.jobs.require(job.id).status is Status.SUCCEEDED


def test_a_job_taken_by_another_worker_is_left_alone(container: Container, job: Job) -> None:
    """The first worker slept through its heartbeats; the second has the job now."""

    def take() -> None:
        running = container.jobs.require(job.id)
        if running.attempts == 1:
            container.jobs.recover(job.id, running.worker_id or "", max_deaths=3)
            container.jobs.claim(job.id, "second")

    execute.run(with_engine(container, take), job.id)
    taken = container.jobs.require(job.id)
    assert (taken.status, taken.worker_id) == (Status.RUNNING, "second")


def test_a_replaced_model_fails_the_job(container: Container, job: Job, made: Any) -> None:
    folder = replace(container.models.find(None, "ct"), sha256="0" * 64)
    models = _OneModel(folder)
    execute.run(replace(container, models=models), job.id)  # type: ignore[arg-type]
    failed = container.jobs.require(job.id)
    assert failed.error is not None
    assert failed.error.code == "model_unavailable"


def test_metrics_tell_of_it(container: Container, job: Job) -> None:
    execute.run(container, job.id)
    sample = container.metrics.registry.get_sample_value
    labels = {"status": "succeeded", "outcome": "lesion_found", "modality": "ct"}
    assert sample("aqcf_jobs_total", labels) == 1
    assert sample("aqcf_stage_seconds_count", {"stage": "seg", "modality": "ct"}) == 1


class _OneModel:
    def __init__(self, folder: Any) -> None:
        self._folder = folder

    def find(self, _model_id: str | None, _modality: str) -> Any:
        return self._folder


def _remove_once(container: Container, job_id: str) -> None:
    if container.jobs.get(job_id) is not None:
        sweep.remove(container, job_id)
