"""What keeps the promises over time: lost jobs are found again, old ones are purged."""

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial

from . import arrive, deliver, device, pull
from .container import Container
from .domain import Job, Status
from .errors import ConflictError, StoreUnavailableError
from .observability import get_logger

log = get_logger("service.sweep")

DAY_S = 86400.0
PURGE_BATCH = 100


def run_once(container: Container) -> None:
    """One round: recover, re-send, purge, and refresh the gauges."""
    settings = container.settings
    recover(container, silent_s=settings.heartbeat_timeout_s)
    resend(container, older_than_s=settings.stale_queued_s)
    try:
        retain(container)
    except StoreUnavailableError as error:  # nothing else has to wait for the store
        log.warning("purge_waits", code=error.code)
    here(container)
    deliver.tidy(container)
    container.workers.forget()
    measure(container)


def here(container: Container) -> None:
    """The part of a round that only a process with these files can do: studies that came to this
    host, and what lies on its disk."""
    container.artifacts.tidy()
    container.artifacts.drop_abandoned()
    arrive.complete(container)
    arrive.tidy(container)


def recover(container: Container, *, silent_s: float) -> None:
    """Take running jobs from workers that are silent; 0 takes all of them (an embedded start,
    when the state folder's lock says that no other process lives)."""
    for job in container.jobs.running(silent_s=silent_s):
        status = container.jobs.recover(
            job.id, job.worker_id or "", max_deaths=container.settings.max_deaths
        )
        if status is not None:
            log.warning("recovered", job_id=job.id, status=status, deaths=job.deaths + 1)
        if status is Status.QUEUED:
            container.queue.send(job.id, job.priority)


def resend(container: Container, *, older_than_s: float) -> None:
    """Queue again what waits in the ledger and not in the queue: however long jobs wait, the queue
    does not grow. A job that is sent twice is claimed once."""
    waiting = container.queue.waiting()
    if waiting is None:  # the next round may find the queue's server
        return
    for job_id, priority in container.jobs.queued(older_than_s=older_than_s).items():
        if job_id not in waiting:
            container.queue.send(job_id, priority)


def retain(container: Container) -> None:
    """Purge finished jobs that are too old, and the oldest ones while the disk is too full."""
    settings = container.settings
    for job_id in container.jobs.finished_ids(older_than_s=settings.retention_days * DAY_S):
        purge(container, job_id)
    for job_id in container.jobs.finished_ids(limit=PURGE_BATCH):
        if not container.artifacts.purge_helps(settings.purge_free_bytes):
            break
        purge(container, job_id)
    if container.artifacts.search_due():
        _drop_orphans(container)


def purge(container: Container, job_id: str) -> None:
    """Forget a finished job with its results, and its input when no other job needs it."""
    container.jobs.delete(job_id, container.artifacts.delete_input)
    container.artifacts.delete(job_id)
    log.info("purged", job_id=job_id)


def remove(container: Container, job_id: str) -> None:
    """Cancel and purge, whatever the job's state (``DELETE``). Raises ``NotFoundError``."""
    job: Job = container.jobs.require(job_id)
    if not job.status.finished:
        _cancel(container, job_id)
    purge(container, job_id)


def measure(container: Container) -> None:
    """Refresh the gauges: of the ledger, of the disk, and of this process' lane and device."""
    arrive.measure(container)
    pull.measure(container)
    deliver.measure(container)
    for status, count in container.jobs.counts().items():
        container.metrics.jobs_now.labels(status).set(count)
    container.metrics.queue_oldest_seconds.set(container.jobs.oldest_queued_s())
    container.metrics.free_bytes.set(container.artifacts.free_bytes())
    container.metrics.lane_waiting_jobs.set(container.lane.waiting)
    container.metrics.lane_busy_jobs.set(container.lane.busy)
    container.metrics.memory_waiting_jobs.set(container.memory.waiting)
    if container.settings.redis_url is None:  # else the device is a worker's, who tells of it
        device.measure(container.metrics)


@contextmanager
def sweeping(container: Container) -> Iterator[None]:
    """Run ``run_once`` every ``settings.sweep_s`` seconds in a thread; pulls, each of which may
    take minutes, in another; deliveries in one per destination."""
    stop = threading.Event()
    fetch = partial(pull.run_once, stopping=stop.is_set)
    with (
        _rounds(container, stop, {"sweep": run_once, "pull": fetch}),
        deliver.delivering(container),
    ):
        yield


@contextmanager
def sweeping_here(container: Container) -> Iterator[None]:
    """Run ``here`` every ``settings.sweep_s`` seconds in a thread: for a gateway, which may be
    alone on its host and leaves the rest to others."""
    with _rounds(container, threading.Event(), {"sweep": here}):
        yield


@contextmanager
def _rounds(
    container: Container, stop: threading.Event, rounds: Mapping[str, Callable[[Container], None]]
) -> Iterator[None]:
    threads = [
        threading.Thread(target=_loop, args=(container, stop, work), name=name, daemon=True)
        for name, work in rounds.items()
    ]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def _loop(container: Container, stop: threading.Event, work: Callable[[Container], None]) -> None:
    while not stop.wait(container.settings.sweep_s):
        try:
            work(container)
        except Exception as error:  # the next round may fare better
            log.error("sweep_failed", exc_info=error)


def _cancel(container: Container, job_id: str) -> None:
    try:
        container.jobs.cancel(job_id)
    except ConflictError:  # it finished just now
        return


def _drop_orphans(container: Container) -> None:
    """Files that no row knows: left by a kill between two steps."""
    store, jobs = container.artifacts, container.jobs
    jobs.drop_inputs(set(store.input_keys()) - jobs.input_keys(), store.delete_input)
    for job_id in set(store.job_ids()) - jobs.ids():
        if jobs.get(job_id) is None:  # it may have come in the meantime
            store.delete(job_id)
