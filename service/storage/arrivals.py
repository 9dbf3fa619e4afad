"""Series that arrive, in SQL: one open arrival per series, whoever receives it.

An arrival is open while instances may join it, then closed by the process that evaluates its study
(``open_key`` is NULL, the state still ``receiving``), then finished. A closed one whose process
died is taken over by another. Every step is one statement or one transaction that applies only to
what was seen, so that any number of listeners and sweeps can run.
"""

import base64
import hashlib
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import CursorResult, Select, bindparam, func, select, update
from sqlalchemy.exc import IntegrityError

from ..domain import Arrival, ArrivalState, Origin
from ..errors import ServiceError
from .database import Database
from .rows import place_of
from .tables import ArrivalRow

TRIES = 8
OPEN_KEY = select(ArrivalRow.open_key).where(ArrivalRow.id == bindparam("arrival_id"))
"""Built once: it is asked for every instance."""


@dataclass(frozen=True)
class SeriesKey:
    """The UIDs of a series, patient data."""

    study_uid: str
    series_uid: str

    @property
    def open_key(self) -> str:
        return hashlib.sha256(f"{self.study_uid}\n{self.series_uid}".encode()).hexdigest()


@dataclass(frozen=True)
class ArrivalFilter:
    """Which arrivals a listing shows; ``None`` means any."""

    state: ArrivalState | None = None
    origin: Origin | None = None
    caller: str | None = None


@dataclass(frozen=True)
class ArrivalPage:
    """Newest first. ``cursor`` asks for the next page; ``None`` on the last one."""

    arrivals: tuple[Arrival, ...]
    cursor: str | None


class ArrivalStore:
    """Methods that return a ``bool`` say whether they applied: a ``False`` means that another
    process was faster."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def open(self, key: SeriesKey, origin: Origin, caller: str) -> Arrival:
        """The open arrival of this series, a new one where there is none."""
        for _ in range(TRIES):
            if (found := self._open_one(key)) is not None:
                return found
            try:
                return self._insert(key, origin, caller)
            except IntegrityError:  # somebody else has just opened it
                continue
        raise ServiceError("an arrival opens and closes without end")

    def is_open(self, arrival_id: str) -> bool:
        """Whether instances may still join. A file that was in its place before this said ``True``
        is seen by whoever closes the arrival."""
        with self._database.reading() as session:
            return session.scalar(OPEN_KEY, {"arrival_id": arrival_id}) is not None

    def add(self, arrival_id: str, instances: int = 0) -> bool:
        """Count instances of an open arrival; without any, show that its sender is still there."""
        statement = _open(arrival_id).values(
            instances=ArrivalRow.instances + instances, last_at=_now()
        )
        return self._applied(statement)

    def due(self, *, idle_s: float, abandoned_s: float, limit: int = 50) -> tuple[str, ...]:
        """Study UIDs to look at, the longest idle first: nothing came to their open arrivals for
        ``idle_s`` seconds, or who closed them was silent for ``abandoned_s``."""
        newest = func.max(ArrivalRow.last_at)
        studies: Any = select(ArrivalRow.study_uid, newest)
        opened = _receiving(studies).where(_is_open())
        closed = _receiving(studies).where(~_is_open())
        with self._database.reading() as session:
            found = [
                *session.execute(_idle(opened, newest, idle_s, limit)),
                *session.execute(_idle(closed, newest, abandoned_s, limit)),
            ]
        ordered = sorted(found, key=lambda row: row[1])
        return tuple(dict.fromkeys(row[0] for row in ordered))[:limit]

    def of_study(self, study_uid: str, *, abandoned_s: float) -> tuple[Arrival, ...]:
        """What ``close`` would close now."""
        with self._database.reading() as session:
            return _arrivals(session.scalars(_closable(study_uid, abandoned_s)))

    def close(self, seen: Iterable[Arrival]) -> tuple[Arrival, ...]:
        """Take these arrivals for evaluation; none when one of them changed since it was seen."""
        wanted = {one.id: one for one in seen}
        statement = select(ArrivalRow).where(ArrivalRow.id.in_(wanted)).with_for_update()
        statement = statement.order_by(ArrivalRow.id)  # locked in one order, or two wait for ever
        with self._database.writing() as session:
            rows = list(session.scalars(statement))
            if not _unchanged(rows, wanted):
                return ()
            for row in rows:
                row.open_key, row.last_at = None, _now()
            session.flush()
            return _arrivals(rows)

    def hold(self, arrival_ids: Iterable[str]) -> None:
        """Show that the process that closed these arrivals is still at work; those that are
        finished stay as they are."""
        statement = update(ArrivalRow).where(
            ArrivalRow.id.in_(list(arrival_ids)),
            ArrivalRow.state == ArrivalState.RECEIVING.value,
            ~_is_open(),
        )
        self._applied(statement.values(last_at=_now()).execution_options(synchronize_session=False))

    def let_go(self, arrival_id: str, *, abandoned_s: float) -> None:
        """Let anybody take a closed arrival at once, as if its process had been silent."""
        statement = update(ArrivalRow).where(ArrivalRow.id == arrival_id, ~_is_open())
        self._applied(statement.values(last_at=_ago(abandoned_s)))

    def expect(self, study_uid: str, counts: Mapping[str, int]) -> None:
        """Write down how many instances of each series the archive has, by series UID."""
        with self._database.writing() as session:
            for row in session.scalars(
                _receiving(select(ArrivalRow)).where(ArrivalRow.study_uid == study_uid)
            ):
                row.expected = counts.get(row.series_uid)

    def finish(
        self,
        arrival_id: str,
        state: ArrivalState,
        *,
        instances: int | None = None,
        rule: str | None = None,
        job_id: str | None = None,
        code: str | None = None,
    ) -> bool:
        """receiving -> ``state``, of a closed arrival. ``instances``: how many there were."""
        statement = (
            update(ArrivalRow)
            .where(
                ArrivalRow.id == arrival_id,
                ArrivalRow.state == ArrivalState.RECEIVING.value,
                ArrivalRow.open_key.is_(None),
            )
            .values(state=state.value, rule=rule, job_id=job_id, code=code)
            .execution_options(synchronize_session=False)
        )
        return self._applied(
            statement if instances is None else statement.values(instances=instances)
        )

    def finished(self, study_uid: str) -> tuple[Arrival, ...]:
        """Finished arrivals of a study, the newest first."""
        statement = select(ArrivalRow).where(
            ArrivalRow.study_uid == study_uid,
            ArrivalRow.state != ArrivalState.RECEIVING.value,
        )
        with self._database.reading() as session:
            return _arrivals(session.scalars(statement.order_by(ArrivalRow.last_at.desc())))

    def get(self, arrival_id: str) -> Arrival | None:
        with self._database.reading() as session:
            row = session.get(ArrivalRow, arrival_id)
            return None if row is None else arrival_of(row)

    def page(
        self, wanted: ArrivalFilter | None = None, *, cursor: str | None = None, limit: int = 50
    ) -> ArrivalPage:
        """Newest first. Raises ``InputError`` (``invalid_cursor``) for a cursor not made here."""
        statement = _matching(select(ArrivalRow), wanted or ArrivalFilter())
        if cursor is not None:
            at, arrival_id = place_of(cursor)
            statement = statement.where(
                (ArrivalRow.first_at < at)
                | ((ArrivalRow.first_at == at) & (ArrivalRow.id < arrival_id))
            )
        statement = statement.order_by(ArrivalRow.first_at.desc(), ArrivalRow.id.desc())
        with self._database.reading() as session:
            found = _arrivals(session.scalars(statement.limit(limit + 1)))
        shown = found[:limit]
        more = len(found) > limit
        return ArrivalPage(shown, _cursor_of(shown[-1]) if more else None)

    def counts(self) -> dict[tuple[Origin, ArrivalState], int]:
        """How many arrivals there are of each origin in each state, zeros left out."""
        statement = select(ArrivalRow.origin, ArrivalRow.state, func.count())
        with self._database.reading() as session:
            rows = session.execute(statement.group_by(ArrivalRow.origin, ArrivalRow.state))
            return {(Origin(origin), ArrivalState(state)): count for origin, state, count in rows}

    def old(self, *, older_than_s: float, limit: int = 500) -> tuple[Arrival, ...]:
        """Arrivals in which nothing changed for so long, in whatever state; the oldest first."""
        statement = select(ArrivalRow).where(ArrivalRow.last_at <= _ago(older_than_s))
        with self._database.reading() as session:
            return _arrivals(session.scalars(statement.order_by(ArrivalRow.last_at).limit(limit)))

    def failed(self, *, limit: int = 100) -> tuple[Arrival, ...]:
        """Failed arrivals, the oldest first."""
        statement = select(ArrivalRow).where(ArrivalRow.state == ArrivalState.FAILED.value)
        with self._database.reading() as session:
            return _arrivals(session.scalars(statement.order_by(ArrivalRow.last_at).limit(limit)))

    def delete(self, arrival_id: str) -> None:
        with self._database.writing() as session:
            row = session.get(ArrivalRow, arrival_id)
            if row is not None:
                session.delete(row)

    def _open_one(self, key: SeriesKey) -> Arrival | None:
        statement = select(ArrivalRow).where(ArrivalRow.open_key == key.open_key)
        with self._database.reading() as session:
            row = session.scalars(statement).first()
            return None if row is None else arrival_of(row)

    def _insert(self, key: SeriesKey, origin: Origin, caller: str) -> Arrival:
        now = _now()
        row = ArrivalRow(
            id=str(uuid.uuid4()),
            origin=origin.value,
            caller=caller,
            study_uid=key.study_uid,
            series_uid=key.series_uid,
            open_key=key.open_key,
            state=ArrivalState.RECEIVING.value,
            instances=0,
            first_at=now,
            last_at=now,
        )
        with self._database.writing() as session:
            session.add(row)
            session.flush()
            return arrival_of(row)

    def _applied(self, statement: Any) -> bool:
        with self._database.writing() as session:
            result = session.execute(statement)
            return isinstance(result, CursorResult) and result.rowcount >= 1


def arrival_of(row: ArrivalRow) -> Arrival:
    return Arrival(
        id=row.id,
        origin=Origin(row.origin),
        caller=row.caller,
        study_uid=row.study_uid,
        series_uid=row.series_uid,
        state=ArrivalState(row.state),
        instances=row.instances,
        first_at=row.first_at,
        last_at=row.last_at,
        expected=row.expected,
        rule=row.rule,
        job_id=row.job_id,
        code=row.code,
    )


def _cursor_of(arrival: Arrival) -> str:
    place = f"{arrival.first_at.isoformat()}|{arrival.id}"
    return base64.urlsafe_b64encode(place.encode()).decode()


def _arrivals(rows: Iterable[ArrivalRow]) -> tuple[Arrival, ...]:
    return tuple(arrival_of(row) for row in rows)


def _now() -> datetime:
    return datetime.now(UTC)


def _ago(seconds: float) -> datetime:
    return _now() - timedelta(seconds=seconds)


def _is_open() -> Any:
    return ArrivalRow.open_key.is_not(None)


def _open(arrival_id: str) -> Any:
    return (
        update(ArrivalRow)
        .where(ArrivalRow.id == arrival_id, _is_open())
        .execution_options(synchronize_session=False)
    )


def _receiving(statement: Select[Any]) -> Select[Any]:
    return statement.where(ArrivalRow.state == ArrivalState.RECEIVING.value)


def _idle(statement: Select[Any], newest: Any, seconds: float, limit: int) -> Select[Any]:
    grouped = statement.group_by(ArrivalRow.study_uid).having(newest <= _ago(seconds))
    return grouped.order_by(newest).limit(limit)


def _closable(study_uid: str, abandoned_s: float) -> Select[Any]:
    abandoned = ArrivalRow.last_at <= _ago(abandoned_s)
    statement = _receiving(select(ArrivalRow)).where(ArrivalRow.study_uid == study_uid)
    return statement.where(_is_open() | abandoned).order_by(ArrivalRow.first_at, ArrivalRow.id)


def _unchanged(rows: Iterable[ArrivalRow], wanted: Mapping[str, Arrival]) -> bool:
    now = {row.id: arrival_of(row) for row in rows}
    return all(
        one.id in now
        and now[one.id].state is ArrivalState.RECEIVING
        and now[one.id].last_at == one.last_at
        for one in wanted.values()
    )


def _matching(statement: Select[Any], wanted: ArrivalFilter) -> Select[Any]:
    columns = {
        ArrivalRow.state: wanted.state,
        ArrivalRow.origin: wanted.origin,
        ArrivalRow.caller: wanted.caller,
    }
    for column, value in columns.items():
        if value is not None:
            statement = statement.where(column == str(value))
    return statement
