"""An append-only row for every access to patient data."""

from dataclasses import dataclass
from datetime import UTC, datetime

from sqlalchemy import select

from .storage.database import Database
from .storage.tables import AuditRow


@dataclass(frozen=True)
class AuditEntry:
    at: datetime
    actor: str
    action: str
    job_id: str | None


class AuditLog:
    """``action`` is a short verb such as ``submit``, ``read``, ``download:seg.dcm``, ``delete``."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def record(self, actor: str, action: str, job_id: str | None = None) -> None:
        row = AuditRow(at=datetime.now(UTC), actor=actor, action=action, job_id=job_id)
        with self._database.writing() as session:
            session.add(row)

    def entries(self, job_id: str | None = None, *, limit: int = 1000) -> tuple[AuditEntry, ...]:
        """Newest first, of one job or of all."""
        statement = select(AuditRow).order_by(AuditRow.id.desc()).limit(limit)
        if job_id is not None:
            statement = statement.where(AuditRow.job_id == job_id)
        with self._database.reading() as session:
            return tuple(
                AuditEntry(row.at, row.actor, row.action, row.job_id)
                for row in session.scalars(statement)
            )
