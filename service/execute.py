"""Run one job: claim it, segment, store, and write down how it ended."""

import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from types import TracebackType

from model.errors import AqcfError, CancelledError
from model.spec import ModelFolder

from .cases import load_case
from .container import Container
from .domain import Finding, Job, JobError, Stage, Status
from .errors import ModelUnavailableError, StoreUnavailableError
from .observability import StageTimer, get_logger
from .produce import Recipe, produce
from .storage.artifacts import full_disk_told

log = get_logger("service.execute")

INTERNAL = JobError("internal_error", "the service failed on this job; its log says where")
MEMORY = JobError("out_of_memory", "the machine ran out of memory on this job")
REPORT_EVERY_S = 0.5


def run(container: Container, job_id: str) -> None:
    """Do the job if it is still queued, else nothing. Never raises for what a job does: the
    ledger says how it ended."""
    claim_id = f"{container.worker_id}/{uuid.uuid4().hex[:8]}"
    job = container.jobs.claim(job_id, claim_id)
    if job is None:
        return
    log.info("started", job_id=job.id, modality=job.modality, attempts=job.attempts)
    with _Watch(container, job.id, claim_id) as watch:
        _settle(container, job, claim_id, watch)
    _tell(container, job.id)


def _settle(container: Container, job: Job, claim_id: str, watch: "_Watch") -> None:
    jobs = container.jobs
    try:
        finding = _work(container, job, watch)
        if not jobs.succeed(job.id, claim_id, finding):
            raise CancelledError("the job was cancelled while its result was stored")
    except (CancelledError, StoreUnavailableError):  # the store may be back for another attempt
        _stopped(container, job.id, claim_id)
    except AqcfError as error:
        log.warning("failed", job_id=job.id, code=error.code, exc_info=error)
        jobs.fail(job.id, claim_id, JobError(error.code, error.message))
    except MemoryError as error:
        log.warning("failed", job_id=job.id, code=MEMORY.code, exc_info=error)
        jobs.fail(job.id, claim_id, MEMORY)
    except Exception as error:
        log.error("failed", job_id=job.id, code=INTERNAL.code, exc_info=error)
        jobs.fail(job.id, claim_id, INTERNAL)


def _work(container: Container, job: Job, watch: "_Watch") -> Finding:
    timer = StageTimer()
    with timer.stage(Stage.READ):
        folder = _model(container, job)
        files = container.artifacts.input_files(job.input_key)
        case = load_case(job.kind, files, job.modality, container.settings, job.input_key)
    watch.report(Stage.PREPARE, 0.0)
    with timer.stage("load_model"):
        precision = folder.spec.profiles[job.profile].precision
        backend = container.open_backend(folder, job.modality, precision)
    recipe = Recipe(folder, job.profile, job.content_key)
    with full_disk_told(), container.artifacts.workspace() as out:
        finding = produce(case, recipe, backend, out, watch.report)
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


def _tell(container: Container, job_id: str) -> None:
    job = container.jobs.get(job_id)
    if job is None or not job.status.finished:
        return
    outcome = job.outcome or (job.error.code if job.error else "none")
    container.metrics.jobs.labels(job.status, outcome, job.modality).inc()
    for stage, seconds in job.seconds.items():
        container.metrics.stage_seconds.labels(stage, job.modality).observe(seconds)
    if job.status is Status.SUCCEEDED:
        total = round(sum(job.seconds.values()), 3)
        log.info("succeeded", job_id=job.id, outcome=job.outcome, seconds=total, engine=job.engine)


class _Watch:
    """Keeps a running job's heartbeat, writes its progress down, and notices when to stop."""

    def __init__(self, container: Container, job_id: str, claim_id: str) -> None:
        self._container = container
        self._job_id, self._claim_id = job_id, claim_id
        self._done = threading.Event()
        self._lost = threading.Event()
        self._stage: Stage | None = None
        self._told_at = 0.0
        self._thread = threading.Thread(target=self._beat, name="heartbeat", daemon=True)

    def __enter__(self) -> "_Watch":
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._done.set()
        self._thread.join()

    def report(self, stage: Stage, progress: float) -> None:
        """Raises ``CancelledError`` when the job was cancelled, deleted or taken, or when the
        process stops."""
        now = time.monotonic()
        if stage is not self._stage or now - self._told_at > REPORT_EVERY_S:
            self._stage, self._told_at = stage, now
            if not self._alive(stage, progress):
                self._lost.set()
        if self._lost.is_set() or self._container.queue.stopping():
            raise CancelledError("the job was told to stop")

    def _beat(self) -> None:
        with _quiet_database_errors(self._job_id):
            while not self._done.wait(self._container.settings.heartbeat_s):
                if not self._alive():
                    self._lost.set()
                    return

    def _alive(self, stage: Stage | None = None, progress: float | None = None) -> bool:
        return self._container.jobs.beat(
            self._job_id, self._claim_id, stage=stage, progress=progress
        )


@contextmanager
def _quiet_database_errors(job_id: str) -> Iterator[None]:
    """A heartbeat that cannot be written ends: the sweep then judges the job by its silence."""
    try:
        yield
    except Exception as error:
        log.error("heartbeat_failed", job_id=job_id, exc_info=error)
