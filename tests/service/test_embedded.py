"""The embedded service: workers, sweep, recovery and retention over time."""

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from service import execute, intake, sweep, wiring
from service.container import Container
from service.domain import Status, SubmitOptions
from service.errors import StateLockedError, StoreUnavailableError
from service.queue import InProcessQueue
from service.settings import Settings
from service.storage.artifacts import FolderStore
from service.uploads import Upload

CT = SubmitOptions("ct")


def until(condition: Callable[[], bool], seconds: float = 15.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.02)


def finished(container: Container, job_id: str) -> bool:
    return container.jobs.require(job_id).status.finished


def test_submitted_is_done(settings: Settings, ct_zip: Path) -> None:
    with wiring.embedded(settings) as container:
        assert container.queue.alive()
        job = intake.submit(container, Upload((ct_zip,)), CT)
        until(lambda: finished(container, job.id))
        assert container.jobs.require(job.id).status is Status.SUCCEEDED
    assert not container.queue.alive()


def test_one_process_holds_the_state(settings: Settings) -> None:
    with wiring.embedded(settings), pytest.raises(StateLockedError), wiring.embedded(settings):
        pass


def test_a_start_takes_up_what_was_left(
    tmp_path: Path, settings: Settings, made: Any, ct_zip: Path
) -> None:
    """One job waits, one was running when its process died; rubbish lies in the staging folder."""
    before = wiring.build(settings)
    running = intake.submit(before, Upload((ct_zip,)), CT)
    before.jobs.claim(running.id, "dead process")
    other = made.nifti(tmp_path / "other.nii.gz")
    waiting = intake.submit(before, Upload((other,)), CT)
    (settings.staging_dir / "rubbish").mkdir()
    before.database.close()

    with wiring.embedded(settings) as container:
        until(lambda: finished(container, running.id) and finished(container, waiting.id))
        done = container.jobs.require(running.id)
        assert (done.status, done.deaths, done.attempts) == (Status.SUCCEEDED, 1, 2)
        assert not (settings.staging_dir / "rubbish").exists()


def test_a_lost_message_is_sent_again(settings: Settings, ct_zip: Path) -> None:
    with wiring.embedded(settings) as container:
        deaf = replace(container, queue=InProcessQueue(1, 1))
        job = intake.submit(deaf, Upload((ct_zip,)), CT)
        until(lambda: finished(container, job.id))


def test_the_sweep_takes_jobs_from_silent_workers(container: Container, ct_zip: Path) -> None:
    job = intake.submit(container, Upload((ct_zip,)), CT)
    container.jobs.claim(job.id, "silent")
    sweep.run_once(container)
    assert container.jobs.require(job.id).status is Status.RUNNING
    time.sleep(container.settings.heartbeat_timeout_s)
    sweep.run_once(container)
    assert container.jobs.require(job.id).status is Status.QUEUED


def test_old_jobs_are_purged(container: Container, ct_zip: Path) -> None:
    job = intake.submit(container, Upload((ct_zip,)), CT)
    execute.run(container, job.id)
    sweep.run_once(container)
    assert container.jobs.get(job.id) is not None
    old = container.settings.model_copy(update={"retention_days": 1e-9})
    sweep.run_once(replace(container, settings=old))
    assert container.jobs.get(job.id) is None
    assert container.artifacts.job_ids() == container.artifacts.input_keys() == ()


def test_a_store_that_is_away_stops_the_purge_and_nothing_else(
    tmp_path: Path, container: Container, ct_zip: Path, made: Any
) -> None:
    class Away(FolderStore):
        def delete_input(self, _key: str) -> None:
            raise StoreUnavailableError("the artifact store does not answer")

    done = intake.submit(container, Upload((ct_zip,)), CT)
    execute.run(container, done.id)
    intake.submit(container, Upload((made.nifti(tmp_path / "a.nii"),)), CT)
    settings = container.settings.model_copy(update={"retention_days": 1e-9})
    store = Away(settings.artifacts_dir, settings.staging_dir)
    sweep.run_once(replace(container, settings=settings, artifacts=store))
    assert container.jobs.require(done.id).status is Status.SUCCEEDED
    sample = container.metrics.registry.get_sample_value
    assert sample("aqcf_jobs_now", {"status": "queued"}) == 1


def test_a_full_disk_purges_finished_jobs_only(
    tmp_path: Path, container: Container, ct_zip: Path, made: Any
) -> None:
    done = intake.submit(container, Upload((ct_zip,)), CT)
    execute.run(container, done.id)
    waiting = intake.submit(container, Upload((made.nifti(tmp_path / "a.nii"),)), CT)
    full = container.settings.model_copy(update={"purge_free_bytes": 2**60})
    sweep.run_once(replace(container, settings=full))
    assert [job.id for job in container.jobs.page().jobs] == [waiting.id]
    assert container.artifacts.input_keys() == (waiting.input_key,)


def test_orphans_go(container: Container, ct_zip: Path) -> None:
    job = intake.submit(container, Upload((ct_zip,)), CT)
    root = container.artifacts.root
    for orphan in (root / "inputs" / ("f" * 64), root / "jobs" / ("0" * 36), root / "jobs" / "x"):
        orphan.mkdir()
        (orphan / "file").write_bytes(b"x")
    sweep.run_once(container)
    assert container.artifacts.input_keys() == (job.input_key,)
    assert [folder.name for folder in (root / "jobs").iterdir()] == ["x"]  # not ours to judge
