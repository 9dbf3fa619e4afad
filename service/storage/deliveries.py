"""The ledger of deliveries: what goes where, who is sending it, and when it is tried again.

A claim holds a row for a lease that its sender renews; when the sender dies the lease ends and
anybody may send again. Every step is one UPDATE that applies only to what was seen.
"""

import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from secrets import SystemRandom
from typing import Any

from sqlalchemy import CursorResult, Select, Update, false, func, or_, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from ..domain import BreakerState, Delivery, DeliveryState, Status
from ..errors import ConflictError, NotFoundError
from . import commitments
from .breakers import BreakerPolicy, BreakerStore
from .database import Database
from .tables import DeliveryRow, JobRow

OPEN = (DeliveryState.PENDING.value, DeliveryState.SENDING.value)
GIVE_UP_S = 3 * 86400.0


@dataclass(frozen=True)
class DeliveryPolicy:
    """Seconds. The n-th failure waits ``first_s`` times 2 to the n-1, at most ``cap_s``, less up to
    half of it by chance, so that what failed together does not come back together."""

    first_s: float = 10.0
    cap_s: float = 3600.0
    give_up_s: float = GIVE_UP_S
    lease_s: float = 60.0
    breaker: BreakerPolicy = field(default_factory=BreakerPolicy)

    def wait(self, attempts: int) -> timedelta:
        whole = min(self.cap_s, self.first_s * 2.0 ** min(attempts - 1, 32))
        return timedelta(seconds=SystemRandom().uniform(whole / 2, whole))


class DeliveryStore:
    """Methods that return a ``bool`` say whether they applied: a ``False`` means that the claim was
    lost, or that the delivery was cancelled."""

    def __init__(self, database: Database, policy: DeliveryPolicy | None = None) -> None:
        self.policy = policy or DeliveryPolicy()
        self.breakers = BreakerStore(database, self.policy.breaker)
        self._database = database

    def enqueue(self, job_id: str, destinations: Iterable[str]) -> tuple[str, ...]:
        """A pending delivery to each destination that has none yet for this job; their names."""
        return tuple(name for name in destinations if self._insert(job_id, name))

    def get(self, delivery_id: str) -> Delivery | None:
        with self._database.reading() as session:
            row = session.get(DeliveryRow, delivery_id)
            return None if row is None else delivery_of(row)

    def require(self, delivery_id: str) -> Delivery:
        """The delivery, or ``NotFoundError`` (``delivery_not_found``)."""
        found = self.get(delivery_id)
        if found is None:
            raise NotFoundError("there is no delivery of this id", code="delivery_not_found")
        return found

    def of_job(self, job_id: str) -> tuple[Delivery, ...]:
        statement = select(DeliveryRow).where(DeliveryRow.job_id == job_id)
        return self._all(statement.order_by(DeliveryRow.destination))

    def listed(
        self,
        state: DeliveryState | None = None,
        destination: str | None = None,
        *,
        limit: int = 100,
    ) -> tuple[Delivery, ...]:
        """Newest first; ``None`` means any."""
        statement = select(DeliveryRow)
        if state is not None:
            statement = statement.where(DeliveryRow.state == state.value)
        if destination is not None:
            statement = statement.where(DeliveryRow.destination == destination)
        return self._all(statement.order_by(DeliveryRow.created_at.desc()).limit(limit))

    def due_destinations(self) -> tuple[str, ...]:
        """Where something can be sent now; not those whose breaker is open."""
        statement = select(DeliveryRow.destination).where(_due()).distinct()
        with self._database.reading() as session:
            due = sorted(session.scalars(statement))
        states = self.breakers.states() if due else {}
        return tuple(name for name in due if states.get(name) is not BreakerState.OPEN)

    def claim(self, destination: str, worker_id: str) -> Delivery | None:
        """The longest due delivery, now ``sending`` by this worker; ``None`` when nothing is due or
        the destination's breaker is open."""
        statement = select(DeliveryRow.id).where(_due(), DeliveryRow.destination == destination)
        statement = statement.order_by(DeliveryRow.next_at, DeliveryRow.id).limit(1)
        with self._database.reading() as session:
            found = session.scalars(statement).first()
        if found is None or not self.breakers.admit(destination):
            return None
        taken = _changed(found).where(_due())
        values = self._held(worker_id) | {"attempts": DeliveryRow.attempts + 1}
        return self.require(found) if self._applied(taken.values(**values)) else None

    def renew(self, delivery_id: str, worker_id: str) -> bool:
        return self._applied(_mine(delivery_id, worker_id).values(**self._held(worker_id)))

    def note(
        self,
        delivery_id: str,
        worker_id: str,
        sent: Sequence[Mapping[str, Any]],
        notes: Sequence[str],
    ) -> bool:
        """Write down how far it came."""
        values = {"sent": [dict(one) for one in sent], "notes": list(notes)}
        return self._applied(_mine(delivery_id, worker_id).values(**values))

    def await_commitment(self, delivery_id: str, worker_id: str, transaction_uid: str) -> bool:
        """Before it is asked for: what is reported under this UID belongs here, as does what is
        reported of those before. A failure that was reported is a thing of the past."""
        unless_promised = func.nullif(DeliveryRow.committed, false())
        statement = _mine(delivery_id, worker_id).values(committed=unless_promised)
        with self._database.writing() as session:
            if applied := _applies(session, statement):
                commitments.begin(session, delivery_id, transaction_uid)
            return applied

    def forget_commitments(self, delivery_id: str, worker_id: str) -> bool:
        """Before anything is sent: no promise counts for it that was asked for until now."""
        statement = _mine(delivery_id, worker_id).values(committed=None)
        return self._applied_and_forgotten(delivery_id, statement)

    def report_commitment(self, transaction_uid: str, *, committed: bool) -> bool:
        """What the destination says of a transaction, however late; see ``commitments.report``."""
        with self._database.writing() as session:
            return commitments.report(session, transaction_uid, committed=committed)

    def delivered(self, delivery_id: str, worker_id: str) -> bool:
        statement = _mine(delivery_id, worker_id)
        values = _ended(DeliveryState.DELIVERED) | {"delivered_at": _now(), "code": None}
        return self._applied_and_forgotten(delivery_id, statement.values(**values))

    def failed(self, delivery_id: str, worker_id: str, code: str) -> bool:
        statement = _mine(delivery_id, worker_id).values(**_ended(DeliveryState.FAILED), code=code)
        return self._applied_and_forgotten(delivery_id, statement)

    def cancelled(self, delivery_id: str, worker_id: str) -> bool:
        statement = _mine(delivery_id, worker_id).values(**_ended(DeliveryState.CANCELLED))
        return self._applied_and_forgotten(delivery_id, statement)

    def postpone(self, delivery: Delivery, worker_id: str, code: str) -> bool:
        """Pending again after a wait that grows with the attempts."""
        values = _waiting(_now() + self.policy.wait(delivery.attempts)) | {"code": code}
        return self._applied(_mine(delivery.id, worker_id).values(**values))

    def expire(self) -> tuple[Delivery, ...]:
        """Fail what was tried for long enough, and return it."""
        statement = select(DeliveryRow.id).where(_idle(), DeliveryRow.give_up_at <= _now())
        with self._database.reading() as session:
            late = tuple(session.scalars(statement))
        return tuple(self.require(found) for found in late if self._expire(found))

    def retry(self, delivery_id: str) -> Delivery:
        """Try a failed, cancelled or waiting delivery from now on, for another ``give_up_s``.

        Raises ``NotFoundError`` (``delivery_not_found``), ``ConflictError``
        (``already_delivered``, ``delivery_in_progress``, ``nothing_to_deliver`` when the job's
        results are gone).
        """
        found = self.require(delivery_id)
        self._check_retry(found)
        again = (DeliveryState.PENDING, DeliveryState.FAILED, DeliveryState.CANCELLED)
        statement = _changed(delivery_id).where(
            DeliveryRow.state.in_([state.value for state in again])
        )
        values = _waiting(_now()) | {"attempts": 0, "sent": [], "notes": [], "code": None}
        values |= {"give_up_at": self._give_up_at(), "committed": None}
        self._applied_and_forgotten(delivery_id, statement.values(**values))
        return self.require(delivery_id)

    def let_go(self, delivery_id: str, worker_id: str) -> bool:
        """Back to who sends next; no failure is counted."""
        return self._applied(_mine(delivery_id, worker_id).values(**_waiting(_now())))

    def release(self, worker_id: str) -> None:
        """Let go of what a process holds that is about to end."""
        statement = (
            update(DeliveryRow)
            .where(
                DeliveryRow.worker_id == worker_id,
                DeliveryRow.state == DeliveryState.SENDING.value,
            )
            .values(**_waiting(_now()))
            .execution_options(synchronize_session=False)
        )
        self._applied(statement)

    def forget(self, *, older_than_s: float) -> None:
        """Drop finished rows whose job is gone."""
        gone = ~select(JobRow.id).where(JobRow.id == DeliveryRow.job_id).exists()
        old = DeliveryRow.updated_at <= _now() - timedelta(seconds=older_than_s)
        statement = select(DeliveryRow).where(DeliveryRow.state.not_in(OPEN), old, gone)
        with self._database.writing() as session:
            for row in session.scalars(statement.limit(500)):
                session.delete(row)

    def counts(self) -> dict[tuple[str, DeliveryState], int]:
        """How many there are by destination and state."""
        statement = select(DeliveryRow.destination, DeliveryRow.state, func.count())
        with self._database.reading() as session:
            rows = session.execute(statement.group_by(DeliveryRow.destination, DeliveryRow.state))
            return {(name, DeliveryState(state)): count for name, state, count in rows}

    def oldest_open_s(self) -> dict[str, float]:
        """Age in seconds of the oldest unfinished delivery of each destination that has one."""
        statement = select(DeliveryRow.destination, func.min(DeliveryRow.created_at)).where(
            DeliveryRow.state.in_(OPEN)
        )
        with self._database.reading() as session:
            rows = session.execute(statement.group_by(DeliveryRow.destination)).all()
        return {name: (_now() - created).total_seconds() for name, created in rows}

    def _insert(self, job_id: str, destination: str) -> bool:
        found = select(DeliveryRow.id).where(
            DeliveryRow.job_id == job_id, DeliveryRow.destination == destination
        )
        try:
            with self._database.writing() as session:
                if session.scalars(found).first() is not None:
                    return False
                session.add(new_row(job_id, destination, self.policy.give_up_s))
        except IntegrityError:  # another process has just done it
            return False
        return True

    def _check_retry(self, found: Delivery) -> None:
        if found.state is DeliveryState.DELIVERED:
            raise ConflictError("it is delivered already", code="already_delivered")
        if found.state is DeliveryState.SENDING:
            raise ConflictError("it is being sent right now", code="delivery_in_progress")
        with self._database.reading() as session:
            job = session.get(JobRow, found.job_id)
        if job is None or job.status != Status.SUCCEEDED:
            raise ConflictError("the job's results are gone", code="nothing_to_deliver")

    def _expire(self, delivery_id: str) -> bool:
        statement = _changed(delivery_id).where(_idle())
        code = func.coalesce(DeliveryRow.code, "pacs_unavailable")
        values = _ended(DeliveryState.FAILED) | {"code": code}
        return self._applied_and_forgotten(delivery_id, statement.values(**values))

    def _held(self, worker_id: str) -> dict[str, Any]:
        return {
            "state": DeliveryState.SENDING.value,
            "worker_id": worker_id,
            "lease_until": _now() + timedelta(seconds=self.policy.lease_s),
        }

    def _give_up_at(self) -> datetime:
        return _now() + timedelta(seconds=self.policy.give_up_s)

    def _all(self, statement: Select[Any]) -> tuple[Delivery, ...]:
        with self._database.reading() as session:
            return tuple(delivery_of(row) for row in session.scalars(statement))

    def _applied(self, statement: Update) -> bool:
        with self._database.writing() as session:
            return _applies(session, statement)

    def _applied_and_forgotten(self, delivery_id: str, statement: Update) -> bool:
        """The change of one delivery, after which nothing counts that was asked for before."""
        with self._database.writing() as session:
            if applied := _applies(session, statement):
                commitments.forget(session, [delivery_id])
            return applied


def new_row(job_id: str, destination: str, give_up_s: float = GIVE_UP_S) -> DeliveryRow:
    """A pending delivery that is due at once."""
    now = _now()
    return DeliveryRow(
        id=str(uuid.uuid4()),
        job_id=job_id,
        destination=destination,
        state=DeliveryState.PENDING.value,
        attempts=0,
        next_at=now,
        give_up_at=now + timedelta(seconds=give_up_s),
        sent=[],
        notes=[],
        created_at=now,
        updated_at=now,
    )


def add_missing(session: Session, job_id: str, destinations: Iterable[str]) -> None:
    """In the caller's transaction, which holds the job: what ``enqueue`` does."""
    there = select(DeliveryRow.destination).where(DeliveryRow.job_id == job_id)
    found = set(session.scalars(there))
    session.add_all(
        new_row(job_id, name) for name in dict.fromkeys(destinations) if name not in found
    )


def cancel_open(session: Session, job_id: str) -> None:
    """In the caller's transaction, which ends the job: nothing more is sent of it."""
    statement = (
        update(DeliveryRow)
        .where(DeliveryRow.job_id == job_id, DeliveryRow.state.in_(OPEN))
        .values(**_ended(DeliveryState.CANCELLED), updated_at=_now())
        .execution_options(synchronize_session=False)
    )
    session.execute(statement)
    commitments.forget(session, select(DeliveryRow.id).where(DeliveryRow.job_id == job_id))


def is_owed(job_id: Any) -> Any:
    """SQL: whether an unfinished delivery needs this job's results."""
    return (
        select(DeliveryRow.id)
        .where(DeliveryRow.job_id == job_id, DeliveryRow.state.in_(OPEN))
        .exists()
    )


def delivery_of(row: DeliveryRow) -> Delivery:
    return Delivery(
        id=row.id,
        job_id=row.job_id,
        destination=row.destination,
        state=DeliveryState(row.state),
        attempts=row.attempts,
        created_at=row.created_at,
        updated_at=row.updated_at,
        give_up_at=row.give_up_at,
        next_at=row.next_at,
        delivered_at=row.delivered_at,
        sent=tuple(row.sent),
        notes=tuple(row.notes),
        code=row.code,
        committed=row.committed,
    )


def _now() -> datetime:
    return datetime.now(UTC)


def _applies(session: Session, statement: Update) -> bool:
    result = session.execute(statement)
    return isinstance(result, CursorResult) and result.rowcount >= 1


def _due() -> Any:
    """Waited long enough, or held by a sender that has gone."""
    return _idle() & (DeliveryRow.next_at <= _now())


def _idle() -> Any:
    """Nobody is sending it."""
    left = (DeliveryRow.state == DeliveryState.SENDING.value) & (DeliveryRow.lease_until <= _now())
    return or_(DeliveryRow.state == DeliveryState.PENDING.value, left)


def _changed(delivery_id: str) -> Update:
    return (
        update(DeliveryRow)
        .where(DeliveryRow.id == delivery_id)
        .values(updated_at=_now())
        .execution_options(synchronize_session=False)
    )


def _mine(delivery_id: str, worker_id: str) -> Update:
    return _changed(delivery_id).where(
        DeliveryRow.state == DeliveryState.SENDING.value, DeliveryRow.worker_id == worker_id
    )


def _waiting(next_at: datetime) -> dict[str, Any]:
    return {
        "state": DeliveryState.PENDING.value,
        "worker_id": None,
        "lease_until": None,
        "next_at": next_at,
    }


def _ended(state: DeliveryState) -> dict[str, Any]:
    return {"state": state.value, "worker_id": None, "lease_until": None, "next_at": None}
