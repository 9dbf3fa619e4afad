"""An append-only row for every access to patient data, and for everybody who was turned away."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Select, select

from model.errors import InputError

from .storage.database import Database
from .storage.tables import AuditRow

BATCH = 1000
LAST_ID = 2**31 - 1  # of an integer column


@dataclass(frozen=True)
class AuditEntry:
    id: int
    at: datetime
    actor: str
    action: str
    job_id: str | None


@dataclass(frozen=True)
class AuditFilter:
    """From ``since`` up to, not including, ``until``; of one job and one actor, or of all."""

    since: datetime | None = None
    until: datetime | None = None
    job_id: str | None = None
    actor: str | None = None


@dataclass(frozen=True)
class AuditPage:
    """``cursor`` of the next page; ``None`` on the last."""

    entries: tuple[AuditEntry, ...]
    cursor: str | None


class AuditLog:
    """``action`` is a short verb such as ``submit``, ``read``, ``download:seg.dcm``, ``delete``.
    Rows are added and read, never changed or removed."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def record(self, actor: str, action: str, job_id: str | None = None) -> None:
        row = AuditRow(at=datetime.now(UTC), actor=actor, action=action, job_id=job_id)
        with self._database.writing() as session:
            session.add(row)

    def entries(self, job_id: str | None = None, *, limit: int = BATCH) -> tuple[AuditEntry, ...]:
        """Newest first, of one job or of all."""
        return self.page(AuditFilter(job_id=job_id), limit=limit).entries

    def page(
        self, wanted: AuditFilter, *, cursor: str | None = None, limit: int = 100
    ) -> AuditPage:
        """Newest first. Raises ``InputError`` (``invalid_cursor``) for a cursor not made here."""
        statement = _matching(wanted).order_by(AuditRow.id.desc())
        if cursor is not None:
            statement = statement.where(AuditRow.id < _place_of(cursor))
        found = self._read(statement.limit(limit + 1))
        more = len(found) > limit
        return AuditPage(found[:limit], str(found[limit - 1].id) if more else None)

    def export(self, wanted: AuditFilter) -> Iterator[AuditEntry]:
        """Oldest first, up to now, however many there are."""
        wanted = replace(wanted, until=wanted.until or datetime.now(UTC))
        last = 0
        while batch := self._read(
            _matching(wanted).where(AuditRow.id > last).order_by(AuditRow.id).limit(BATCH)
        ):
            yield from batch
            last = batch[-1].id

    def _read(self, statement: Select[Any]) -> tuple[AuditEntry, ...]:
        with self._database.reading() as session:
            return tuple(
                AuditEntry(row.id, row.at, row.actor, row.action, row.job_id)
                for row in session.scalars(statement)
            )


def _matching(wanted: AuditFilter) -> Select[Any]:
    statement = select(AuditRow)
    if wanted.since is not None:
        statement = statement.where(AuditRow.at >= wanted.since)
    if wanted.until is not None:
        statement = statement.where(AuditRow.at < wanted.until)
    if wanted.job_id is not None:
        statement = statement.where(AuditRow.job_id == wanted.job_id)
    if wanted.actor is not None:
        statement = statement.where(AuditRow.actor == wanted.actor)
    return statement


def _place_of(cursor: str) -> int:
    if not (cursor.isascii() and cursor.isdigit() and len(cursor) < 11 and int(cursor) <= LAST_ID):
        raise InputError("the cursor was not made by this service", code="invalid_cursor")
    return int(cursor)
