"""Which workers live, as they say themselves."""

from datetime import UTC, datetime, timedelta

from sqlalchemy import CursorResult, delete, select, update

from ..domain import WorkerInfo
from .database import Database
from .tables import WorkerRow

FORGOTTEN_S = 3600.0  # a row that its process left behind stays this long for people to see


class WorkerStore:
    """One row per worker process, from ``register`` to ``leave``."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def register(self, info: WorkerInfo) -> None:
        """Insert or replace this worker's row."""
        with self._database.writing() as session:
            session.merge(_row_of(info))

    def beat(self, worker_id: str, *, ready: bool, running: int) -> bool:
        """Show life; ``False`` when the row is gone, and the worker has to register again."""
        statement = (
            update(WorkerRow)
            .where(WorkerRow.id == worker_id)
            .values(ready=ready, running=running, heartbeat_at=datetime.now(UTC))
        )
        with self._database.writing() as session:
            result = session.execute(statement)
            return isinstance(result, CursorResult) and result.rowcount == 1

    def leave(self, worker_id: str) -> None:
        with self._database.writing() as session:
            session.execute(delete(WorkerRow).where(WorkerRow.id == worker_id))

    def alive(self, max_silence_s: float) -> tuple[WorkerInfo, ...]:
        """Workers heard of in the last ``max_silence_s`` seconds, by id."""
        statement = select(WorkerRow).where(WorkerRow.heartbeat_at > _ago(max_silence_s))
        with self._database.reading() as session:
            rows = session.scalars(statement.order_by(WorkerRow.id))
            return tuple(_info_of(row) for row in rows)

    def forget(self, silent_s: float = FORGOTTEN_S) -> None:
        """Drop the rows of workers that died without a word."""
        with self._database.writing() as session:
            session.execute(delete(WorkerRow).where(WorkerRow.heartbeat_at <= _ago(silent_s)))


def _ago(seconds: float) -> datetime:
    return datetime.now(UTC) - timedelta(seconds=seconds)


def _row_of(info: WorkerInfo) -> WorkerRow:
    return WorkerRow(
        id=info.id,
        host=info.host,
        engine=info.engine,
        device=info.device,
        memory_bytes=info.memory_bytes,
        models=list(info.models),
        ready=info.ready,
        running=info.running,
        started_at=info.started_at,
        heartbeat_at=info.heartbeat_at,
    )


def _info_of(row: WorkerRow) -> WorkerInfo:
    return WorkerInfo(
        id=row.id,
        host=row.host,
        engine=row.engine,
        device=row.device,
        memory_bytes=row.memory_bytes,
        models=tuple(row.models),
        ready=row.ready,
        running=row.running,
        started_at=row.started_at,
        heartbeat_at=row.heartbeat_at,
    )
