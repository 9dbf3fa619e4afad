"""``aqcf worker``: Celery in this very process, its jobs in threads (a fork would lose the GPU)."""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import wait
from contextlib import contextmanager, suppress
from dataclasses import replace

from celery import Celery
from celery.worker import state

from .. import execute, sweep
from ..container import Container
from ..observability import configure_logging, get_logger
from ..queue.celery import make_app
from ..scrape import show_metrics
from ..settings import Settings
from ..storage.database import UNREACHABLE
from ..storage.jobs import JobStore
from ..wiring import deployed
from .pulse import Pulse
from .tasks import exit_code, register
from .warm import warm

LEAVE_S = 20.0  # for running jobs to notice that they shall stop
LOOK_S = 0.2

log = get_logger("service.worker")


def serve(settings: Settings, ready: Callable[[str], None]) -> int:
    """Do jobs until a signal comes; those that run then go back into the queue at once. Returns the
    exit code: not 0 when the device broke. A model or a job that hangs ends the process at once,
    with ``EXIT_STUCK``.

    ``ready`` is called with this worker's id when the default model is loaded. Raises
    ``RoleSettingsError``, ``LedgerUnavailableError``, ``ModelUnavailableError``, ``BackendError``.
    """
    configure_logging(settings.log_level)
    with (
        deployed(settings, "worker") as container,
        _leaving(container),
        sweep.sweeping(container),
    ):
        _show_metrics(container)
        with Pulse(container) as pulse:
            pulse.ready(warmed(container))
            ready(container.worker_id)
            _take_jobs(container, pulse)
        with suppress(*UNREACHABLE):
            sweep.resend(container, older_than_s=0.0)
        return exit_code(container)


def warmed(container: Container, end: Callable[[int], object] = os._exit) -> str:
    """The engine's name, once the default model is loaded. A device that does not come up within
    ``job_hard_limit_s`` hangs: ``end`` ends the process, for its supervisor to start it again."""
    work = execute.in_a_thread(lambda: warm(container))
    if not wait([work], timeout=container.settings.job_hard_limit_s).done:
        log.error("stuck", worker_id=container.worker_id, code=execute.STUCK.code)
        end(execute.EXIT_STUCK)
    return work.result()


def _show_metrics(container: Container) -> None:
    if (port := container.settings.metrics_port) is not None:
        show_metrics(container.metrics.registry, port, container.settings.metrics_host)


def _take_jobs(container: Container, pulse: Pulse) -> None:
    """Blocks until the queue is stopped. A running job waits for a database that restarts."""
    settings = container.settings
    patient = JobStore(container.database, patience_s=settings.heartbeat_timeout_s)
    app = make_app(settings)
    register(app, replace(container, jobs=patient), pulse)
    _consumer(app, container).start()


def _consumer(app: Celery, container: Container) -> "Celery.WorkController":
    return app.WorkController(
        hostname=container.worker_id,
        pool="threads",
        concurrency=container.settings.workers,
        without_gossip=True,
        without_heartbeat=True,
        without_mingle=True,
    )


@contextmanager
def _leaving(container: Container) -> Iterator[None]:
    """Signals stop the queue; whoever stops it ends Celery, by force when a job does not heed."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: container.queue.stop())
    gone = threading.Event()
    thread = threading.Thread(target=_see_off, args=(container, gone), name="leave", daemon=True)
    thread.start()
    try:
        yield
    finally:
        gone.set()


def _see_off(container: Container, gone: threading.Event) -> None:
    while not container.queue.stopping():
        if gone.wait(LOOK_S):
            return
    log.info("leaving", worker_id=container.worker_id)
    state.should_stop = os.EX_OK
    if not gone.wait(LEAVE_S):
        leave_by_force(container)


def leave_by_force(container: Container, end: Callable[[int], object] = os._exit) -> None:
    """A job that sits in a library's call cannot be stopped: hand it to others, and end."""
    log.warning("left_by_force", worker_id=container.worker_id)
    with suppress(*UNREACHABLE):
        execute.hand_back(container)
        sweep.resend(container, older_than_s=0.0)
        container.workers.leave(container.worker_id)
    end(exit_code(container))
