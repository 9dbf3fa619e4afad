"""What goes wrong at the device or takes too long, and how a job is stopped at every stage."""

import os
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fastapi import Response
from sqlalchemy.exc import OperationalError

from model.backends import open_backend
from model.errors import BackendBrokenError, OutOfMemoryError
from model.types import Batch
from service import execute, intake, wiring
from service.api.routers.system import get_readiness
from service.container import Container
from service.domain import Job, Stage, Status, SubmitOptions
from service.errors import WorkerBrokenError
from service.settings import Settings
from service.storage.jobs import JobStore
from service.uploads import Upload

CT = SubmitOptions("ct")
STAGES = [stage for stage in Stage if stage is not Stage.INFERENCE]


class Stub:
    """Calls ``before`` with each batch, then answers as the real engine does."""

    name, engine, precision = "stub", "stub", "f32"

    def __init__(self, container: Container, before: Callable[[Batch], None]) -> None:
        folder = container.models.find(None, "ct")
        self._real = open_backend(folder, "ct", "onnxruntime", threads=1)
        self._before = before

    def logits(self, batch: Batch) -> Batch:
        self._before(batch)
        return self._real.logits(batch)


def with_engine(container: Container, before: Callable[[Batch], None]) -> Container:
    backend = Stub(container, before)
    return replace(container, open_backend=lambda *_: backend)


def with_settings(container: Container, **values: Any) -> Container:
    return replace(container, settings=container.settings.model_copy(update=values))


@pytest.fixture
def job(container: Container, tmp_path: Path, made: Any) -> Job:
    return intake.submit(container, Upload((made.nifti(tmp_path / "a.nii"),)), CT)


@pytest.fixture
def other(container: Container, tmp_path: Path, made: Any) -> Job:
    path = made.nifti(tmp_path / "b.nii", made.phantom(seed=1))
    return intake.submit(container, Upload((path,)), CT)


class CancelsAt(JobStore):
    """The ledger, which hears of a cancellation right before a job tells of a stage."""

    def __init__(self, container: Container, at: Stage) -> None:
        super().__init__(container.database)
        self._at = at

    def beat(self, job_id: str, worker_id: str, **told: Any) -> bool:
        if told.get("stage") is self._at:
            self.cancel(job_id)
        return super().beat(job_id, worker_id, **told)


@pytest.mark.parametrize("stage", STAGES)
def test_cancelled_at_any_stage(container: Container, ct_zip: Path, stage: Stage) -> None:
    job = intake.submit(container, Upload((ct_zip,)), CT)
    execute.run(replace(container, jobs=CancelsAt(container, stage)), job.id)
    assert container.jobs.require(job.id).status is Status.CANCELLED
    assert container.artifacts.job_ids() == ()
    assert not list(container.artifacts.staging.iterdir())
    assert (container.lane.busy, container.lane.waiting) == (0, 0)


def test_out_of_memory_once_is_told(container: Container, job: Job) -> None:
    sizes: list[int] = []

    def small(batch: Batch) -> None:
        sizes.append(len(batch))
        if len(batch) > 1:
            raise OutOfMemoryError("too much at once")

    execute.run(with_engine(container, small), job.id)
    done = container.jobs.require(job.id)
    assert done.status is Status.SUCCEEDED
    assert "one by one" in done.applied[0]
    assert sizes.count(4) == 1
    assert sizes[-1] == 1


def test_out_of_memory_twice_fails_the_job(container: Container, job: Job) -> None:
    sizes: list[int] = []

    def never(batch: Batch) -> None:
        sizes.append(len(batch))
        raise OutOfMemoryError("nothing left")

    execute.run(with_engine(container, never), job.id)
    failed = container.jobs.require(job.id)
    assert failed.error is not None
    assert (failed.status, failed.error.code) == (Status.FAILED, "out_of_memory")
    assert max(sizes[:-1]) > 1
    assert sizes[-1] == 1
    assert container.lane.busy == 0


def test_after_a_death_windows_go_one_by_one(container: Container, job: Job) -> None:
    """A kernel that kills for memory tells nobody why."""
    sizes: list[int] = []
    container.jobs.claim(job.id, "dead")
    container.jobs.recover(job.id, "dead", max_deaths=3)
    execute.run(with_engine(container, lambda batch: sizes.append(len(batch))), job.id)
    assert container.jobs.require(job.id).status is Status.SUCCEEDED
    assert set(sizes) == {1}


def broken(_batch: Batch) -> None:
    raise BackendBrokenError("the device of stub broke down while running a batch")


def test_a_broken_device_gives_the_job_back_and_takes_no_other(
    container: Container, job: Job, other: Job
) -> None:
    with pytest.raises(WorkerBrokenError, match="started again"):
        execute.run(with_engine(container, broken), job.id)
    back = container.jobs.require(job.id)
    assert (back.status, back.deaths, back.error) == (Status.QUEUED, 1, None)
    assert container.lane.closed
    execute.run(container, other.id)
    assert container.jobs.require(other.id).attempts == 0


class Away(JobStore):
    """Its database is away."""

    def recover(self, *_: Any, **__: Any) -> Status | None:
        raise OperationalError("UPDATE jobs", {}, Exception("the connection is closed"))


def test_a_device_that_breaks_while_the_ledger_is_away_ends_the_process(
    container: Container, job: Job
) -> None:
    """The job is recovered later, by its silence."""
    away = replace(container, jobs=Away(container.database))
    with pytest.raises(WorkerBrokenError):
        execute.run(with_engine(away, broken), job.id)
    assert container.jobs.require(job.id).status is Status.RUNNING


def test_the_third_broken_device_fails_the_job(container: Container, job: Job) -> None:
    for _ in range(2):
        container.jobs.claim(job.id, "dead")
        container.jobs.recover(job.id, "dead", max_deaths=3)
    with pytest.raises(WorkerBrokenError):
        execute.run(with_engine(container, broken), job.id)
    failed = container.jobs.require(job.id)
    assert failed.error is not None
    assert failed.error.code == "worker_died"


def test_who_waits_for_a_device_that_breaks_goes_back_without_a_death(
    container: Container, job: Job, other: Job
) -> None:
    waiting = threading.Thread(target=execute.run, args=(container, other.id))

    def breaks(batch: Batch) -> None:
        waiting.start()
        while container.lane.waiting == 0:
            assert waiting.is_alive()
        broken(batch)

    with pytest.raises(WorkerBrokenError):
        execute.run(with_engine(container, breaks), job.id)
    waiting.join()
    back = container.jobs.require(other.id)
    assert (back.status, back.deaths, back.attempts) == (Status.QUEUED, 0, 1)


def test_a_broken_device_is_not_ready(settings: Settings, tmp_path: Path, made: Any) -> None:
    upload = Upload((made.nifti(tmp_path / "a.nii"),))
    opened: list[Stub] = []
    with wiring.embedded(settings, lambda *_: opened[0]) as container:
        opened.append(Stub(container, broken))
        assert get_readiness(container, Response()).status == "ready"
        job = intake.submit(container, upload, CT)
        _until(lambda: container.jobs.require(job.id).deaths == 1)
        _until(lambda: container.lane.closed)
        checks = get_readiness(container, Response()).checks
        assert [name for name, ok in checks.items() if not ok] == ["worker"]
        assert container.jobs.require(job.id).status is Status.QUEUED


def test_the_soft_limit_stops_a_job(container: Container, job: Job) -> None:
    limited = with_settings(container, job_soft_limit_s=0.01)
    execute.run(limited, job.id)
    failed = container.jobs.require(job.id)
    assert failed.error is not None
    assert (failed.status, failed.error.code) == (Status.FAILED, "time_limit")
    assert "0.01 s" in failed.error.message


def test_waiting_for_the_device_counts_for_no_limit(container: Container, job: Job) -> None:
    limited = with_settings(container, job_soft_limit_s=3.0, job_hard_limit_s=3.0)
    ticket = container.lane.enter(job.priority, lambda: None)
    timer = threading.Timer(3.5, container.lane.leave, (ticket,))
    timer.start()
    execute.run(limited, job.id)
    done = container.jobs.require(job.id)
    assert (done.status, done.error) == (Status.SUCCEEDED, None)
    assert done.seconds["wait"] > 2.0


def test_where_people_live_a_stuck_job_fails_and_the_next_runs(
    settings: Settings, tmp_path: Path, made: Any
) -> None:
    limited = settings.model_copy(update={"job_soft_limit_s": 0.5, "job_hard_limit_s": 0.5})
    go_on, came_back = threading.Event(), threading.Event()
    calls: list[int] = []

    def sticks(batch: Batch) -> None:
        calls.append(len(batch))
        if len(calls) == 1:
            go_on.wait()
            came_back.set()

    opened: list[Stub] = []
    with wiring.embedded(limited, lambda *_: opened[0]) as container:
        opened.append(Stub(container, sticks))
        stuck = intake.submit(container, Upload((made.nifti(tmp_path / "a.nii"),)), CT)
        _until(lambda: container.jobs.require(stuck.id).status is Status.FAILED)
        assert container.lane.busy == 0
        patient = replace(container, settings=settings)
        path = made.nifti(tmp_path / "b.nii", made.phantom(seed=1))
        following = intake.submit(replace(patient, queue=_Nowhere()), Upload((path,)), CT)
        execute.run(patient, following.id)
        assert container.jobs.require(following.id).status is Status.SUCCEEDED
        assert container.queue.alive()
        go_on.set()
        assert came_back.wait(10)
        _until(lambda: not list(container.artifacts.staging.iterdir()))
        left = container.jobs.require(stuck.id)
        assert left.error is not None
        assert (left.status, left.error.code) == (Status.FAILED, "time_limit")
        assert container.lane.busy == 0


STUCK_WORKER = textwrap.dedent(
    """
    import os, sys, threading
    from dataclasses import replace
    from service import execute, wiring
    from service.settings import Settings

    class Stuck:
        name = engine = precision = "stuck"

        def logits(self, batch):
            threading.Event().wait()

    container = wiring.build(Settings(), lambda *_: Stuck())
    patient = replace(container, settings=container.settings.model_copy(
        update={"job_soft_limit_s": 600.0, "job_hard_limit_s": 600.0}))
    threading.Thread(
        target=execute.run, args=(patient, sys.argv[2], os._exit), daemon=True).start()
    while container.jobs.require(sys.argv[2]).stage is None:
        pass
    execute.run(container, sys.argv[1], os._exit)
    """
)


def test_a_worker_ends_itself_for_a_stuck_job(
    container: Container, settings: Settings, job: Job, other: Job
) -> None:
    """The neighbour that waits for the device goes back without a death."""
    limited = with_settings(container, lanes=2)
    environment = os.environ | {
        "AQCF_STATE_DIR": str(settings.state_dir),
        "AQCF_MODELS_DIR": str(settings.models_dir),
        "AQCF_DEFAULT_MODEL": "tiny",
        "AQCF_LANES": str(limited.settings.lanes),
        "AQCF_JOB_SOFT_LIMIT_S": "0.5",
        "AQCF_JOB_HARD_LIMIT_S": "0.5",
    }
    command = [sys.executable, "-c", STUCK_WORKER, job.id, other.id]
    done = subprocess.run(command, env=environment, check=False, timeout=60)
    assert done.returncode == execute.EXIT_STUCK
    stuck, neighbour = (container.jobs.require(each.id) for each in (job, other))
    assert (stuck.status, stuck.deaths) == (Status.QUEUED, 1)
    assert (neighbour.status, neighbour.deaths) == (Status.QUEUED, 0)
    execute.run(container, job.id)
    assert container.jobs.require(job.id).status is Status.SUCCEEDED


HANGS_WHILE_LOADING = textwrap.dedent(
    """
    import os, sys, threading
    from service import execute, wiring
    from service.settings import Settings

    class Hanging(wiring.BackendCache):
        def _open(self, folder, modality, precision):
            threading.Event().wait()

    container = wiring.build(Settings(), Hanging("auto", None))
    execute.run(container, sys.argv[1], os._exit)
    """
)


def test_a_worker_ends_itself_for_a_model_that_hangs_while_it_loads(
    container: Container, settings: Settings, job: Job
) -> None:
    environment = os.environ | {
        "AQCF_STATE_DIR": str(settings.state_dir),
        "AQCF_MODELS_DIR": str(settings.models_dir),
        "AQCF_DEFAULT_MODEL": "tiny",
        "AQCF_JOB_SOFT_LIMIT_S": "0.5",
        "AQCF_JOB_HARD_LIMIT_S": "0.5",
    }
    command = [sys.executable, "-c", HANGS_WHILE_LOADING, job.id]
    done = subprocess.run(command, env=environment, check=False, timeout=60)
    assert done.returncode == execute.EXIT_STUCK
    stuck = container.jobs.require(job.id)
    assert (stuck.status, stuck.deaths) == (Status.QUEUED, 1)


def test_a_model_that_hangs_while_it_loads_holds_up_no_other(
    container: Container, settings: Settings
) -> None:
    go_on = threading.Event()

    class OneHangs(wiring.BackendCache):
        def _open(self, folder: Any, modality: Any, precision: Any) -> Any:
            if modality == "mr":
                go_on.wait()
            return super()._open(folder, modality, precision)

    cache = OneHangs("onnxruntime", 1)
    folder = container.models.default()
    hanging = execute.in_a_thread(lambda: cache(folder, "mr", "f32"))
    loaded = execute.in_a_thread(lambda: [cache(folder, "ct", "f32") for _ in range(2)])
    first, second = loaded.result(timeout=20)
    assert first is second
    assert not hanging.done()
    go_on.set()
    assert hanging.result(timeout=20).engine == "onnxruntime"


class _Nowhere:
    def send(self, *_: object) -> None:
        """The test runs the job itself."""


def _until(condition: Callable[[], bool]) -> None:
    for _ in range(1500):
        if condition():
            return
        threading.Event().wait(0.01)
    raise AssertionError("it did not happen in time")
