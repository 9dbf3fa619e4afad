"""The one task: an id in, a job done."""

import os

from celery import Celery

from .. import execute as jobs
from ..container import Container
from ..errors import WorkerBrokenError
from ..observability import get_logger
from ..queue.celery import TASK
from .pulse import Pulse

log = get_logger("service.worker")


def register(app: Celery, container: Container, pulse: Pulse) -> None:
    """Make ``app`` do jobs with ``container``."""

    def execute(job_id: str) -> None:
        with pulse.working():
            run(container, job_id)

    app.task(execute, name=TASK)


def run(container: Container, job_id: str) -> None:
    """Do the job. A broken device ends the process in order, a job that hangs at once."""
    try:
        jobs.run(container, job_id, os._exit)
    except WorkerBrokenError as error:
        log.error("broken", job_id=job_id, code=error.code)
        container.queue.stop()


def exit_code(container: Container) -> int:
    """Not 0 where the device is broken, for a supervisor that starts only those again."""
    return jobs.EXIT_BROKEN if container.lane.closed else os.EX_OK
