"""Run one job: claim it, segment, store, and write down how it ended."""

import threading
import uuid
from collections.abc import Callable
from concurrent.futures import Future, wait
from contextlib import AbstractContextManager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Final, TypeVar

from model.errors import AqcfError, BackendBrokenError, CancelledError
from model.spec import ModelFolder

from .cases import load_case
from .container import Container
from .domain import Finding, Job, JobError, Stage, Status
from .errors import (
    ModelUnavailableError,
    StorageFullError,
    StoreUnavailableError,
    WorkerBrokenError,
)
from .observability import StageTimer, get_logger
from .produce import Recipe, produce
from .room import room_of
from .storage.artifacts import full_disk_told
from .storage.database import UNREACHABLE
from .tracing import Span
from .watch import Watch

log = get_logger("service.execute")

EXIT_BROKEN: Final = 70
EXIT_STUCK: Final = 71
MARK_S: Final = 5.0  # a ledger that is away must not keep a stuck process alive
INTERNAL = JobError("internal_error", "the service failed on this job; its log says where")
MEMORY = JobError("out_of_memory", "the machine ran out of memory on this job")
STUCK = JobError("time_limit", "the job did not stop when its time was up; it was given up")

LATER: Final = (*UNREACHABLE, StoreUnavailableError, StorageFullError)
"""What is no fault of the job: there may be a ledger, a store or room for another attempt, which
the sweep starts after a while."""

EndProcess = Callable[[int], object]
T = TypeVar("T")


def run(container: Container, job_id: str, end_process: EndProcess | None = None) -> None:
    """Do the job if it is still queued, else nothing. The ledger says how it ended; what a job
    does raises nothing, but one thing.

    Raises ``WorkerBrokenError`` when the device broke on it: the job is back in the queue, with a
    death counted, and this process takes no other; it has to end (with ``EXIT_BROKEN``) for its
    supervisor to start it again.

    A job that does not stop within ``job_hard_limit_s`` is beyond help. ``end_process`` is how a
    worker process ends at once (``os._exit``): it is called with ``EXIT_STUCK`` after the job went
    back with a death counted and the others of this process without. ``None``, where people live
    in this process too: the job fails with ``time_limit`` and its thread is left behind.
    """
    if container.lane.closed:
        return
    claim_id = f"{container.worker_id}/{uuid.uuid4().hex[:8]}"
    job = container.jobs.claim(job_id, claim_id)
    if job is None:
        return
    log.info("started", job_id=job.id, modality=job.modality, attempts=job.attempts)
    with _traced(container, job) as span:
        with Watch(container, job, claim_id, span) as watch:
            work = in_a_thread(lambda: _settle(container, job, claim_id, watch))
            if watch.guard(work):
                work.result()
            else:
                watch.abandon()
                _give_up(container, job, claim_id, end_process)
        _tell(container, job.id, span)


def _traced(container: Container, job: Job) -> AbstractContextManager[Span]:
    if job.attempts == 1:
        container.tracing.past("queue", job.id, job.created_at)
    return container.tracing.span(
        "attempt",
        job.id,
        modality=job.modality,
        model=job.model_id,
        profile=job.profile,
        attempts=job.attempts,
    )


def in_a_thread(work: Callable[[], T]) -> "Future[T]":
    """``work`` in a thread of its own, which can be left behind."""
    future: Future[T] = Future()

    def go() -> None:
        try:
            future.set_result(work())
        except BaseException as error:  # it is raised again where the result is asked for
            future.set_exception(error)

    threading.Thread(target=go, name="job", daemon=True).start()
    return future


def hand_back(container: Container) -> None:
    """Queue the running jobs of this process again, for a process that is about to end; no death
    is counted for them."""
    for job in container.jobs.running():
        if job.worker_id is not None and job.worker_id.startswith(f"{container.worker_id}/"):
            container.jobs.release(job.id, job.worker_id)


def _settle(container: Container, job: Job, claim_id: str, watch: Watch) -> None:
    jobs = container.jobs
    try:
        with full_disk_told():
            finding = _work(container, job, watch)
        if not jobs.succeed(job.id, claim_id, finding):
            raise CancelledError("the job was cancelled while its result was stored")
    except CancelledError:
        _stopped(container, job.id, claim_id)
    except LATER as error:
        log.warning("put_off", job_id=job.id, kind=type(error).__name__, exc_info=error)
        _stopped(container, job.id, claim_id)
    except BackendBrokenError as error:
        _broke(container, job, claim_id, error)
    except AqcfError as error:
        log.warning("failed", job_id=job.id, code=error.code, exc_info=error)
        jobs.fail(job.id, claim_id, JobError(error.code, error.message))
    except MemoryError as error:
        log.warning("failed", job_id=job.id, code=MEMORY.code, exc_info=error)
        jobs.fail(job.id, claim_id, MEMORY)
    except Exception as error:
        log.error("failed", job_id=job.id, code=INTERNAL.code, exc_info=error)
        jobs.fail(job.id, claim_id, INTERNAL)
    finally:
        watch.leave()


def _broke(container: Container, job: Job, claim_id: str, error: BackendBrokenError) -> None:
    """First the lane is closed, so that no other job meets the broken device."""
    container.lane.close()
    log.error("device_broken", job_id=job.id, code=error.code, exc_info=error)
    with suppress(*UNREACHABLE):  # then a sweep recovers the silent job
        container.jobs.recover(job.id, claim_id, max_deaths=container.settings.max_deaths)
    raise WorkerBrokenError(f"{error.message}; this process has to be started again") from error


def _give_up(container: Container, job: Job, claim_id: str, end_process: EndProcess | None) -> None:
    log.error("stuck", job_id=job.id, code=STUCK.code)
    if end_process is None:
        container.jobs.fail(job.id, claim_id, STUCK)
        return
    container.lane.close()
    wait([in_a_thread(lambda: _mark(container, job, claim_id))], timeout=MARK_S)
    end_process(EXIT_STUCK)


def _mark(container: Container, job: Job, claim_id: str) -> None:
    container.jobs.recover(job.id, claim_id, max_deaths=container.settings.max_deaths)
    container.workers.leave(container.worker_id)
    hand_back(container)


def _work(container: Container, job: Job, watch: Watch) -> Finding:
    timer = StageTimer()
    watch.report(Stage.READ, 0.0)
    folder = _model(container, job)
    with timer.stage("load_model"):
        precision = folder.spec.profiles[job.profile].precision
        backend = container.open_backend(folder, job.modality, precision)
    room = room_of(container, job, folder.spec, backend.name)
    watch.take_memory(room.memory, room.place)
    watch.report(Stage.READ, 0.0)
    with timer.stage(Stage.READ):
        files = container.artifacts.input_files(job.input_key)
        case = load_case(job.kind, files, job.modality, container.settings, job.input_key)
    recipe = Recipe(folder, job.profile, job.content_key, room.batch)
    with container.artifacts.workspace() as out:
        finding = produce(case, recipe, backend, out, watch.report)
        timer.add(Stage.WAIT, watch.waited_s)
        return _stored(container, job, finding, out, timer)


def _stored(
    container: Container, job: Job, finding: Finding, out: Path, timer: StageTimer
) -> Finding:
    with timer.stage(Stage.STORE):
        artifacts = container.artifacts.put(job.id, out)
    for stage, seconds in finding.seconds.items():
        timer.add(stage, seconds)
    return replace(
        finding,
        artifacts=artifacts,
        notes=tuple(dict.fromkeys((*job.notes, *finding.notes))),
        seconds=timer.in_order(list(Stage)),
    )


def _model(container: Container, job: Job) -> ModelFolder:
    folder = container.models.find(job.model_id, job.modality)
    if folder.sha256 != job.model_sha256:
        raise ModelUnavailableError(
            f"the model {job.model_id} was replaced since the job was accepted; submit it again"
        )
    return folder


def _stopped(container: Container, job_id: str, claim_id: str) -> None:
    """Cancelled by a client, told to stop with the process, or taken or deleted by others."""
    job = container.jobs.get(job_id)
    if job is None:
        _drop_results(container, job_id)
    elif job.cancel_requested:
        container.jobs.set_cancelled(job_id, claim_id)
        _drop_results(container, job_id)
    else:
        container.jobs.release(job_id, claim_id)


def _drop_results(container: Container, job_id: str) -> None:
    with suppress(StoreUnavailableError):  # then they go with the job, or with the next sweep
        container.artifacts.delete(job_id)


def _tell(container: Container, job_id: str, span: Span) -> None:
    job = container.jobs.get(job_id)
    if job is None:
        return
    code = job.error.code if job.error else None
    span.tell(status=job.status, outcome=job.outcome, engine=job.engine, code=code)
    if not job.status.finished:
        return
    outcome = job.outcome or code or "none"
    container.metrics.jobs.labels(job.status, outcome, job.modality).inc()
    for stage, seconds in job.seconds.items():
        container.metrics.stage_seconds.labels(stage, job.modality).observe(seconds)
    if job.status is Status.SUCCEEDED:
        total = round(sum(job.seconds.values()), 3)
        log.info("succeeded", job_id=job.id, outcome=job.outcome, seconds=total, engine=job.engine)
