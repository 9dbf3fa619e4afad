"""The ledger of pulls: what is to be fetched, who is fetching, and when it is tried again.

A claim holds a row for a lease that is renewed as instances come; when its process dies the lease
ends and another takes over. Every step is one UPDATE that applies only to what was seen.
"""

import hashlib
import json
import uuid
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import CursorResult, Update, delete, func, select, update
from sqlalchemy.exc import IntegrityError

from ..domain import NewPull, Priority, Pull, PullState
from ..errors import NotFoundError
from .database import Database
from .tables import PullRow

LEASE_S = 120.0
FIRST_WAIT_S, LAST_WAIT_S = 10.0, 600.0
MAX_ATTEMPTS = 12  # about an hour and a half
URGENT_FIRST = PullRow.priority.desc()  # "urgent" sorts behind "routine"


class PullStore:
    """Methods that return a ``bool`` say whether they applied: a ``False`` means that the claim was
    lost. ``lease_s``: a claimed pull of which nothing is heard for so long is taken over."""

    def __init__(self, database: Database, lease_s: float = LEASE_S) -> None:
        self._database = database
        self._lease_s = lease_s

    def create(self, asked: NewPull) -> Pull:
        """A pull that is due at once, or the unfinished one that asks for the same."""
        key = _open_key(asked)
        for _ in range(2):
            if (found := self._open(key)) is not None:
                return found
            try:
                return self._insert(asked, key)
            except IntegrityError:  # another process has just done it
                continue
        return self._insert(asked, None)  # it was finished in between, twice

    def get(self, pull_id: str) -> Pull | None:
        with self._database.reading() as session:
            row = session.get(PullRow, pull_id)
            return None if row is None else pull_of(row)

    def require(self, pull_id: str) -> Pull:
        """The pull, or ``NotFoundError`` (``pull_not_found``)."""
        found = self.get(pull_id)
        if found is None:
            raise NotFoundError("there is no pull of this id", code="pull_not_found")
        return found

    def claim(self, worker_id: str) -> Pull | None:
        """The next pull that is due, now ``fetching`` by this process: urgent ones first, then the
        one that waits longest."""
        statement = select(PullRow.id).where(_due()).order_by(URGENT_FIRST, PullRow.next_at)
        with self._database.reading() as session:
            found = session.scalars(statement.limit(1)).first()
        if found is None:
            return None
        values = {
            "state": PullState.FETCHING.value,
            "worker_id": worker_id,
            "lease_until": self._lease_end(),
            "attempts": PullRow.attempts + 1,
            "instances": 0,
        }
        taken = update(PullRow).where(PullRow.id == found, _due()).values(**values)
        return self.require(found) if self._applied(taken) else None

    def renew(
        self, pull: Pull, *, instances: int, expected: int | None = None, silence_s: float = 0.0
    ) -> bool:
        """Show that it goes on, and how far it came; ``silence_s``: how long nothing may come from
        the node."""
        lease_end = self._lease_end() + timedelta(seconds=silence_s)
        values = {"instances": instances, "expected": expected, "lease_until": lease_end}
        return self._applied(_mine(pull).values(**values))

    def done(
        self, pull: Pull, *, instances: int, expected: int | None = None, job_id: str | None = None
    ) -> bool:
        values = {"instances": instances, "expected": expected, "job_id": job_id, "code": None}
        return self._applied(_mine(pull).values(**_ended(PullState.DONE), **values))

    def failed(self, pull: Pull, code: str) -> bool:
        return self._applied(_mine(pull).values(**_ended(PullState.FAILED), code=code))

    def postpone(self, pull: Pull, code: str) -> bool:
        """Wait, longer after each try; after the last one it has failed."""
        if pull.attempts >= MAX_ATTEMPTS:
            return self.failed(pull, code)
        wait_s = min(LAST_WAIT_S, FIRST_WAIT_S * 2.0 ** (pull.attempts - 1))
        return self._applied(_mine(pull).values(**_waiting(wait_s), code=code))

    def release(self, pull: Pull) -> bool:
        """Let go of it, for another process to take at once; this try does not count."""
        attempts = PullRow.attempts - 1
        return self._applied(_mine(pull).values(**_waiting(0.0), attempts=attempts))

    def give_up(self) -> int:
        """Fail what killed its process too often; gives their number."""
        dead = (
            PullRow.state == PullState.FETCHING.value,
            PullRow.lease_until <= _now(),
            PullRow.attempts >= MAX_ATTEMPTS,
        )
        code = func.coalesce(PullRow.code, "worker_died")
        statement = update(PullRow).where(*dead).values(**_ended(PullState.FAILED), code=code)
        return self._count(statement)

    def forget(self, *, older_than_s: float) -> int:
        """Drop finished pulls, UIDs and all; gives their number."""
        old = PullRow.updated_at <= _now() - timedelta(seconds=older_than_s)
        finished = PullRow.state.in_([PullState.DONE.value, PullState.FAILED.value])
        with self._database.writing() as session:
            result = session.execute(delete(PullRow).where(finished, old))
            return result.rowcount if isinstance(result, CursorResult) else 0

    def counts(self) -> dict[PullState, int]:
        with self._database.reading() as session:
            rows = session.execute(select(PullRow.state, func.count()).group_by(PullRow.state))
            return {PullState(state): count for state, count in rows}

    def _open(self, key: str) -> Pull | None:
        with self._database.reading() as session:
            row = session.scalars(select(PullRow).where(PullRow.open_key == key)).first()
            return None if row is None else pull_of(row)

    def _insert(self, asked: NewPull, key: str | None) -> Pull:
        row = _new_row(asked, key)
        with self._database.writing() as session:
            session.add(row)
            session.flush()
            return pull_of(row)

    def _lease_end(self) -> datetime:
        return _now() + timedelta(seconds=self._lease_s)

    def _applied(self, statement: Update) -> bool:
        return self._count(statement) >= 1

    def _count(self, statement: Update) -> int:
        options = statement.values(updated_at=_now()).execution_options(synchronize_session=False)
        with self._database.writing() as session:
            result = session.execute(options)
            return result.rowcount if isinstance(result, CursorResult) else 0


def pull_of(row: PullRow) -> Pull:
    asked = NewPull(
        node=row.node,
        study_uid=row.study_uid,
        actor=row.actor,
        series_uid=row.series_uid,
        modality=row.modality,  # type: ignore[arg-type]
        model=row.model,
        profile=row.profile,
        destinations=tuple(row.destinations),
        priority=Priority(row.priority),
    )
    return Pull(
        id=row.id,
        asked=asked,
        state=PullState(row.state),
        attempts=row.attempts,
        instances=row.instances,
        created_at=row.created_at,
        updated_at=row.updated_at,
        expected=row.expected,
        code=row.code,
        job_id=row.job_id,
        worker_id=row.worker_id,
    )


def _new_row(asked: NewPull, key: str | None) -> PullRow:
    now = _now()
    return PullRow(
        id=str(uuid.uuid4()),
        open_key=key,
        **asdict(asked) | {"destinations": list(asked.destinations)},
        state=PullState.WAITING.value,
        attempts=0,
        instances=0,
        next_at=now,
        created_at=now,
        updated_at=now,
    )


def _open_key(asked: NewPull) -> str:
    return hashlib.sha256(json.dumps(asdict(asked), sort_keys=True).encode()).hexdigest()


def _due() -> Any:
    now = _now()
    waiting = (PullRow.state == PullState.WAITING.value) & (PullRow.next_at <= now)
    dead = (PullRow.state == PullState.FETCHING.value) & (PullRow.lease_until <= now)
    return waiting | (dead & (PullRow.attempts < MAX_ATTEMPTS))


def _mine(pull: Pull) -> Update:
    return update(PullRow).where(
        PullRow.id == pull.id,
        PullRow.worker_id == pull.worker_id,
        PullRow.attempts == pull.attempts,
        PullRow.state == PullState.FETCHING.value,
    )


def _waiting(seconds: float) -> dict[str, Any]:
    return {
        "state": PullState.WAITING.value,
        "worker_id": None,
        "lease_until": None,
        "next_at": _now() + timedelta(seconds=seconds),
    }


def _ended(state: PullState) -> dict[str, Any]:
    return {"state": state.value, "open_key": None, "worker_id": None, "lease_until": None}


def _now() -> datetime:
    return datetime.now(UTC)
