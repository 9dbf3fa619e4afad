"""A breaker per destination, shared by all processes that send: what is down is left in peace."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from sqlalchemy import CursorResult, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from ..domain import BreakerState
from .database import Database
from .tables import BreakerRow


@dataclass(frozen=True)
class BreakerPolicy:
    """Opens after ``failures`` in a row that say "unavailable", for ``open_s`` seconds, doubled
    with every failed probe up to ``cap_s``. A probe has ``probe_s`` to show how it went."""

    failures: int = 5
    open_s: float = 30.0
    cap_s: float = 600.0
    probe_s: float = 300.0

    def open_for(self, failures: int) -> timedelta:
        doubled = self.open_s * 2.0 ** min(failures - self.failures, 16)
        return timedelta(seconds=min(self.cap_s, doubled))


class BreakerStore:
    def __init__(self, database: Database, policy: BreakerPolicy) -> None:
        self._database = database
        self._policy = policy

    def admit(self, destination: str) -> bool:
        """Whether something may be sent now. Of a half-open breaker only one caller hears yes."""
        with self._database.reading() as session:
            row = session.get(BreakerRow, destination)
        if row is None or row.open_until is None:
            return True
        return row.open_until <= _now() and self._take_probe(destination, row.open_until)

    def state(self, destination: str) -> BreakerState:
        return self.states().get(destination, BreakerState.CLOSED)

    def states(self) -> dict[str, BreakerState]:
        """Of every destination that ever failed."""
        with self._database.reading() as session:
            return {row.destination: _state(row) for row in session.scalars(select(BreakerRow))}

    def succeeded(self, destination: str) -> None:
        """The destination answered, whatever it said."""
        statement = (
            update(BreakerRow)
            .where(BreakerRow.destination == destination)
            .values(failures=0, open_until=None)
            .execution_options(synchronize_session=False)
        )
        with self._database.writing() as session:
            session.execute(statement)

    def failed(self, destination: str) -> BreakerState:
        """One more failure in a row."""
        self._make(destination)
        with self._database.writing() as session:
            row = _locked(session, destination)
            row.failures += 1
            if row.failures >= self._policy.failures:
                row.open_until = _now() + self._policy.open_for(row.failures)
            return _state(row)

    def _take_probe(self, destination: str, seen: datetime) -> bool:
        later = _now() + timedelta(seconds=self._policy.probe_s)
        statement = (
            update(BreakerRow)
            .where(BreakerRow.destination == destination, BreakerRow.open_until == seen)
            .values(open_until=later)
            .execution_options(synchronize_session=False)
        )
        with self._database.writing() as session:
            result = session.execute(statement)
            return isinstance(result, CursorResult) and result.rowcount == 1

    def _make(self, destination: str) -> None:
        with self._database.reading() as session:
            if session.get(BreakerRow, destination) is not None:
                return
        try:
            with self._database.writing() as session:
                session.add(BreakerRow(destination=destination, failures=0))
        except IntegrityError:  # another process has just made it
            return


def _locked(session: Session, destination: str) -> BreakerRow:
    statement = select(BreakerRow).where(BreakerRow.destination == destination).with_for_update()
    return session.scalars(statement).one()


def _state(row: BreakerRow) -> BreakerState:
    if row.open_until is None:
        return BreakerState.CLOSED
    return BreakerState.OPEN if row.open_until > _now() else BreakerState.HALF_OPEN


def _now() -> datetime:
    return datetime.now(UTC)
