"""Parts of the worker in this process: what it says of itself, and how it leaves by force."""

import os
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from prometheus_client import generate_latest
from servers import RedisServer, wait_until
from sqlalchemy.exc import InternalError
from structlog.testing import capture_logs

from service import intake
from service.container import Container
from service.domain import Status, SubmitOptions
from service.errors import ModelUnavailableError, RoleSettingsError, StateLockedError
from service.execute import EXIT_BROKEN, EXIT_STUCK
from service.queue.celery import CeleryQueue
from service.registry import ModelRegistry
from service.settings import Settings
from service.storage.workers import WorkerStore
from service.uploads import Upload
from service.wiring import deployed, embedded
from service.worker.process import leave_by_force
from service.worker.pulse import Pulse
from service.worker.tasks import exit_code
from service.worker.warm import warm


@pytest.fixture
def there(container: Container, broker: RedisServer) -> Iterator[Container]:
    """A container over Redis."""
    settings = container.settings.model_copy(update={"redis_url": broker.url})
    queue = CeleryQueue(settings, container.workers)
    with capture_logs():
        yield replace(container, settings=settings, queue=queue)
    queue.close()


def test_a_pulse_is_seen_while_it_beats(there: Container) -> None:
    with Pulse(there) as pulse:
        [seen] = there.workers.alive(60)
        assert (seen.id, seen.ready, there.queue.alive()) == (there.worker_id, False, False)
        pulse.ready("onnxruntime-cpu-f32")
        with pulse.working():
            wait_until(lambda: there.workers.alive(60)[0].running == 1, "no beat")
        [seen] = there.workers.alive(60)
        assert (seen.ready, seen.device, there.queue.alive()) == (True, "cpu", True)
        assert b"aqcf_worker_ready 1.0" in generate_latest(there.metrics.registry)
        there.workers.forget(silent_s=0.0)
        wait_until(lambda: bool(there.workers.alive(60)), "it does not register again")
        there.lane.close()
        wait_until(lambda: not there.queue.alive(), "a broken device counts as ready")
        assert exit_code(there) == EXIT_BROKEN
    assert there.workers.alive(60) == ()


class ReadOnly(WorkerStore):
    """Its database takes no writes for a moment, as one that is being replaced by its standby."""

    beats = 0

    def beat(self, worker_id: str, *, ready: bool, running: int) -> bool:
        self.beats += 1
        if self.beats == 1:
            raise InternalError("UPDATE workers", {}, Exception("a read-only transaction"))
        return super().beat(worker_id, ready=ready, running=running)


def test_a_pulse_outlives_a_ledger_that_takes_no_writes(there: Container) -> None:
    workers = ReadOnly(there.database)
    with Pulse(replace(there, workers=workers)):
        wait_until(lambda: workers.beats > 2, "it does not beat any more")


def test_the_silent_are_not_alive(there: Container) -> None:
    with Pulse(there) as pulse:
        pulse.ready("x")
        assert there.workers.alive(60)
        assert there.workers.alive(0) == ()


def test_what_cannot_stop_is_handed_on(there: Container, broker: RedisServer, ct_zip: Path) -> None:
    job = intake.submit(there, Upload((ct_zip,)), SubmitOptions("ct"))
    assert there.jobs.claim(job.id, f"{there.worker_id}/1") is not None
    broker.flush()
    ends: list[int] = []
    leave_by_force(there, ends.append)
    again = there.jobs.require(job.id)
    assert (again.status, again.deaths, ends) == (Status.QUEUED, 0, [0])
    assert there.queue.waiting() == {job.id}


def test_the_default_model_is_run_before_a_worker_is_ready(
    container: Container, tmp_path: Path
) -> None:
    assert warm(container) == "onnxruntime-cpu-f32"
    nothing = replace(container, models=ModelRegistry(tmp_path, "tiny"))
    with pytest.raises(ModelUnavailableError):
        warm(nothing)


def test_a_role_needs_a_queue(settings: Settings) -> None:
    with pytest.raises(RoleSettingsError), deployed(settings):
        pass


def test_roles_share_a_state_folder_that_an_embedded_service_has_alone(
    settings: Settings, broker: RedisServer
) -> None:
    shared = settings.model_copy(update={"redis_url": broker.url})
    with deployed(shared), deployed(shared), pytest.raises(StateLockedError), embedded(settings):
        pass
    with embedded(shared) as container:
        assert not isinstance(container.queue, CeleryQueue)
        with pytest.raises(StateLockedError), deployed(shared):
            pass


HANGING_WORKER = textwrap.dedent(
    """
    import sys, threading
    from service import wiring, worker
    from service.settings import Settings

    class Hanging(wiring.BackendCache):
        def _open(self, folder, modality, precision):
            threading.Event().wait()

    wiring.BackendCache = Hanging
    sys.exit(worker.serve(Settings(), print))
    """
)


def test_a_worker_whose_model_hangs_at_the_start_ends_for_its_supervisor(
    there: Container, settings: Settings
) -> None:
    environment = os.environ | {
        "AQCF_STATE_DIR": str(settings.state_dir),
        "AQCF_MODELS_DIR": str(settings.models_dir),
        "AQCF_DEFAULT_MODEL": "tiny",
        "AQCF_REDIS_URL": there.settings.redis_url or "",
        "AQCF_JOB_SOFT_LIMIT_S": "1",
        "AQCF_JOB_HARD_LIMIT_S": "1",
    }
    command = [sys.executable, "-c", HANGING_WORKER]
    done = subprocess.run(
        command, env=environment, check=False, timeout=60, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout) == (EXIT_STUCK, "")
    assert '"stuck"' in done.stderr
