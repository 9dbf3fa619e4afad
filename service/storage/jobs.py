"""The ledger of jobs. Every change of status is one compare-and-set UPDATE."""

from collections.abc import Callable, Iterable
from typing import Any

from sqlalchemy import CursorResult, Update, case, func, select
from sqlalchemy.orm import Session

from ..domain import (
    Finding,
    Job,
    JobError,
    JobFilter,
    NewJob,
    Page,
    Priority,
    Stage,
    Status,
)
from ..errors import BusyError, ConflictError, IdempotencyKeyReusedError, NotFoundError
from .database import Database, patiently
from .deliveries import add_missing, cancel_open, is_owed
from .moves import (
    after_death,
    ago,
    failure,
    finished,
    lifted,
    mine,
    move,
    now,
    queued_again,
    result_of,
)
from .rows import cursor_of, job_of, matching, place_of, row_of
from .tables import JobRow


class JobStore:
    """Jobs in SQL. Methods named after a status move a job there and return whether it moved: a
    ``False`` means that another process was faster, or that the job is gone.

    ``patience_s``: how long what a running job needs (moves and ``get``) waits for a database that
    restarts; 0 raises at once.
    """

    def __init__(self, database: Database, patience_s: float = 0.0) -> None:
        self._database = database
        self._patience_s = patience_s

    def create(
        self,
        new: NewJob,
        *,
        queue_limit: int,
        retry_after_s: int = 30,
        place_input: Callable[[], None] = lambda: None,
    ) -> tuple[Job, bool]:
        """Insert a queued job, or find the live one with the same content or idempotency key.

        ``place_input`` runs right before the commit, under the write lock, so that no purge of the
        same input comes between. Returns the job and whether it was created. Raises ``BusyError``
        when ``queue_limit`` jobs wait already, ``IdempotencyKeyReusedError`` when the key came
        with other content.
        """
        with self._database.writing(alone=True) as session:
            if (found := self._existing(session, new)) is not None:
                return self._joined(session, found, new.destinations), False
            self._admit(session, queue_limit, retry_after_s)
            row = row_of(new, now())
            session.add(row)
            session.flush()
            place_input()
            return job_of(row), True

    def admit(self, *, queue_limit: int, retry_after_s: int = 30) -> None:
        """Raise ``BusyError`` when the queue is full: asked before an upload is looked at."""
        with self._database.reading() as session:
            self._admit(session, queue_limit, retry_after_s)

    def get(self, job_id: str) -> Job | None:
        return patiently(lambda: self._get(job_id), self._patience_s)

    def require(self, job_id: str) -> Job:
        """The job, or ``NotFoundError`` (``job_not_found``)."""
        job = self.get(job_id)
        if job is None:
            raise NotFoundError("there is no job of this id", code="job_not_found")
        return job

    def page(
        self, wanted: JobFilter | None = None, *, cursor: str | None = None, limit: int = 50
    ) -> Page:
        """Newest first. Raises ``InputError`` (``invalid_cursor``) for a cursor not made here."""
        statement = matching(select(JobRow), wanted or JobFilter())
        if cursor is not None:
            created_at, job_id = place_of(cursor)
            statement = statement.where(
                (JobRow.created_at < created_at)
                | ((JobRow.created_at == created_at) & (JobRow.id < job_id))
            )
        statement = statement.order_by(JobRow.created_at.desc(), JobRow.id.desc())
        with self._database.reading() as session:
            jobs = [job_of(row) for row in session.scalars(statement.limit(limit + 1))]
        more = len(jobs) > limit
        return Page(tuple(jobs[:limit]), cursor_of(jobs[limit - 1]) if more else None)

    def counts(self) -> dict[Status, int]:
        """How many jobs there are in each status, zeros included."""
        statement = select(JobRow.status, func.count()).group_by(JobRow.status)
        with self._database.reading() as session:
            found = {Status(status): count for status, count in session.execute(statement)}
        return {status: found.get(status, 0) for status in Status}

    def claim(self, job_id: str, worker_id: str) -> Job | None:
        """queued -> running for this worker; ``None`` when the job is not queued (any more)."""
        start = now()
        statement = move(job_id, Status.QUEUED, Status.RUNNING).values(
            worker_id=worker_id,
            attempts=JobRow.attempts + 1,
            started_at=start,
            heartbeat_at=start,
            stage=Stage.READ.value,
            progress=0.0,
        )
        return self.get(job_id) if self._applied(statement) else None

    def lift(self, job_id: str) -> bool:
        """Make an unfinished routine job urgent; ``False`` when there is nothing to lift. What
        runs goes on as it does, and would be urgent if it had to be queued again."""
        statement = lifted(job_id).where(JobRow.priority == Priority.ROUTINE.value)
        return self._applied(statement)

    def beat(
        self,
        job_id: str,
        worker_id: str,
        *,
        stage: Stage | None = None,
        progress: float | None = None,
    ) -> bool:
        """Show life and, when given, progress. ``False``: stop, this job was cancelled or taken."""
        values: dict[str, Any] = {"heartbeat_at": now()}
        if stage is not None:
            values |= {"stage": stage.value, "progress": progress or 0.0}
        statement = mine(job_id, worker_id).where(JobRow.cancel_requested.is_(False))
        return self._applied(statement.values(**values))

    def succeed(self, job_id: str, worker_id: str, finding: Finding) -> bool:
        """running -> succeeded, unless a cancellation was asked for in the meantime. From the same
        moment on its results are owed to its destinations."""
        statement = mine(job_id, worker_id).where(JobRow.cancel_requested.is_(False))
        statement = statement.values(**finished(Status.SUCCEEDED), **result_of(finding))
        return patiently(lambda: self._succeed(job_id, statement), self._patience_s)

    def fail(self, job_id: str, worker_id: str, error: JobError) -> bool:
        statement = mine(job_id, worker_id)
        return self._applied(statement.values(**finished(Status.FAILED), **failure(error)))

    def set_cancelled(self, job_id: str, worker_id: str) -> bool:
        """running -> cancelled, by the worker that saw the request."""
        statement = mine(job_id, worker_id)
        return self._applied(statement.values(**finished(Status.CANCELLED)))

    def release(self, job_id: str, worker_id: str) -> bool:
        """running -> queued, by a worker that is told to stop: no death is counted."""
        statement = mine(job_id, worker_id).where(JobRow.cancel_requested.is_(False))
        return self._applied(statement.values(**queued_again()))

    def cancel(self, job_id: str) -> Job:
        """Cancel a queued job at once; ask the worker of a running one to stop.

        Raises ``NotFoundError``, ``ConflictError`` (``already_finished``).
        """
        queued = move(job_id, Status.QUEUED, Status.CANCELLED)
        if self._applied(queued.values(**finished(Status.CANCELLED))):
            return self.require(job_id)
        running = move(job_id, Status.RUNNING, Status.RUNNING).values(cancel_requested=True)
        if not self._applied(running) and self.require(job_id).status is not Status.CANCELLED:
            raise ConflictError("the job has finished already", code="already_finished")
        return self.require(job_id)

    def recover(self, job_id: str, worker_id: str, *, max_deaths: int) -> Status | None:
        """Take a running job from a dead worker: queued again, or failed with ``worker_died``
        after ``max_deaths`` deaths, or cancelled when that was asked for. ``None``: not its job.
        """
        with self._database.writing() as session:
            row = session.get(JobRow, job_id, with_for_update=True)
            if row is None or row.status != Status.RUNNING or row.worker_id != worker_id:
                return None
            status, values = after_death(row, max_deaths)
            statement = mine(job_id, worker_id)
            session.execute(statement.values(**values, deaths=row.deaths + 1))
            return status

    def queued(self, *, older_than_s: float = 0.0) -> dict[str, Priority]:
        """Queued jobs that nothing changed for ``older_than_s`` seconds, in the order in which
        they shall run: urgent ones first, then the oldest."""
        statement = select(JobRow.id, JobRow.priority).where(
            JobRow.status == Status.QUEUED, JobRow.updated_at <= ago(older_than_s)
        )
        rank = case((JobRow.priority == Priority.URGENT.value, 0), else_=1)
        statement = statement.order_by(rank, JobRow.created_at, JobRow.id)
        with self._database.reading() as session:
            return {job_id: Priority(word) for job_id, word in session.execute(statement)}

    def oldest_queued_s(self) -> float:
        """Seconds since the job that waits longest was accepted; 0 when none waits."""
        statement = select(func.min(JobRow.created_at)).where(JobRow.status == Status.QUEUED)
        with self._database.reading() as session:
            first = session.execute(statement).scalar_one()
        return 0.0 if first is None else max(0.0, (now() - first).total_seconds())

    def running(self, *, silent_s: float = 0.0) -> tuple[Job, ...]:
        """Running jobs whose last heartbeat is at least ``silent_s`` seconds old."""
        statement = select(JobRow).where(
            JobRow.status == Status.RUNNING, JobRow.heartbeat_at <= ago(silent_s)
        )
        with self._database.reading() as session:
            return tuple(job_of(row) for row in session.scalars(statement))

    def finished_ids(self, *, older_than_s: float = 0.0, limit: int = 100) -> tuple[str, ...]:
        """Finished jobs whose results are not owed to a destination, the longest finished first."""
        statement = select(JobRow.id).where(
            JobRow.finished_at <= ago(older_than_s), ~is_owed(JobRow.id)
        )
        return self._ids(statement.order_by(JobRow.finished_at, JobRow.id).limit(limit))

    def delete(self, job_id: str, drop_input: Callable[[str], None]) -> bool:
        """Forget a job, and under the same lock its input when no other job needs it. The worker
        of a running one stops at its next heartbeat; nothing more of it is delivered."""
        with self._database.writing(alone=True) as session:
            row = session.get(JobRow, job_id)
            if row is None:
                return False
            session.delete(row)
            cancel_open(session, job_id)
            session.flush()
            self._drop_unused(session, row.input_key, drop_input)
            return True

    def ids(self) -> frozenset[str]:
        """All there are."""
        return frozenset(self._ids(select(JobRow.id)))

    def input_keys(self) -> frozenset[str]:
        """Inputs that a job needs now; one that is missing here may be needed a moment later."""
        return frozenset(self._ids(select(JobRow.input_key).distinct()))

    def drop_inputs(self, keys: Iterable[str], drop_input: Callable[[str], None]) -> None:
        """Drop those of the stored inputs that no job needs."""
        for key in keys:
            with self._database.writing(alone=True) as session:
                self._drop_unused(session, key, drop_input)

    def ping(self) -> None:
        """Raise when the database does not answer."""
        with self._database.reading() as session:
            session.execute(select(1))

    def _existing(self, session: Session, new: NewJob) -> Job | None:
        if new.idempotency_key is not None:
            same_key = select(JobRow).where(
                JobRow.actor == new.actor, JobRow.idempotency_key == new.idempotency_key
            )
            if (row := session.scalars(same_key).first()) is not None:
                return _same_content(row, new)
        live = session.scalars(select(JobRow).where(JobRow.live_key == new.content_key)).first()
        return None if live is None else job_of(live)

    def _joined(self, session: Session, found: Job, destinations: Iterable[str]) -> Job:
        """The job that is there already, its results owed to the new destinations, too."""
        more = [name for name in destinations if name not in found.destinations]
        row = session.get(JobRow, found.id, with_for_update=True, populate_existing=True)
        if row is None or not more:
            return found
        row.destinations = [*dict.fromkeys((*row.destinations, *more))]
        row.revision += 1
        if row.status == Status.SUCCEEDED:
            add_missing(session, row.id, row.destinations)
        session.flush()
        return job_of(row)

    def _succeed(self, job_id: str, statement: Update) -> bool:
        with self._database.writing() as session:
            result = session.execute(statement)
            if not isinstance(result, CursorResult) or result.rowcount != 1:
                return False
            row = session.get_one(JobRow, job_id)
            add_missing(session, job_id, row.destinations)
            return True

    def _admit(self, session: Session, queue_limit: int, retry_after_s: int) -> None:
        statement = select(func.count()).where(JobRow.status == Status.QUEUED)
        waiting = session.execute(statement).scalar_one()
        if waiting >= queue_limit:
            raise BusyError(
                f"{waiting} jobs are waiting, the limit is {queue_limit}; try again later",
                retry_after_s=retry_after_s,
            )

    def _drop_unused(self, session: Session, key: str, drop_input: Callable[[str], None]) -> None:
        users = select(JobRow.id).where(JobRow.input_key == key).limit(1)
        if session.scalars(users).first() is None:
            drop_input(key)

    def _get(self, job_id: str) -> Job | None:
        with self._database.reading() as session:
            row = session.get(JobRow, job_id)
            return None if row is None else job_of(row)

    def _applied(self, statement: Update) -> bool:
        """Tried again it does no harm: after a lost answer the second time applies to nothing."""
        return patiently(lambda: self._apply(statement), self._patience_s)

    def _apply(self, statement: Update) -> bool:
        with self._database.writing() as session:
            result = session.execute(statement)
            return isinstance(result, CursorResult) and result.rowcount == 1

    def _ids(self, statement: Any) -> tuple[str, ...]:
        with self._database.reading() as session:
            return tuple(session.scalars(statement))


def _same_content(row: JobRow, new: NewJob) -> Job:
    if row.content_key != new.content_key:
        raise IdempotencyKeyReusedError(
            "this Idempotency-Key was used for another input or other settings"
        )
    return job_of(row)
