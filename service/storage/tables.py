"""The ledger's tables. Portable SQL: SQLite embedded, PostgreSQL deployed."""

from datetime import UTC, datetime
from typing import Any, ClassVar

from sqlalchemy import JSON, BigInteger, DateTime, Dialect, Index, MetaData, String, TypeDecorator
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

NAMING = {
    "ix": "ix_%(column_0_label)s",
    "uq": "uq_%(table_name)s_%(column_0_name)s",
    "pk": "pk_%(table_name)s",
}


class UtcDateTime(TypeDecorator[datetime]):
    """An aware UTC datetime, also where the database forgets the zone."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002
        return None if value is None else value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class Base(DeclarativeBase):
    metadata = MetaData(naming_convention=NAMING)
    type_annotation_map: ClassVar[dict[Any, Any]] = {
        datetime: UtcDateTime,
        dict[str, Any]: JSON,
        list[Any]: JSON,
    }


class JobRow(Base):
    """``live_key`` is the content key while the job is live and NULL afterwards, so that its unique
    index says "one live job per content" in every database."""

    __tablename__ = "jobs"
    __table_args__ = (
        Index("ix_jobs_status_created", "status", "created_at"),
        Index("ix_jobs_created_id", "created_at", "id"),
        Index("uq_jobs_actor_idempotency", "actor", "idempotency_key", unique=True),
    )

    id: Mapped[str] = mapped_column(String(36), primary_key=True)
    status: Mapped[str] = mapped_column(String(16))
    stage: Mapped[str | None] = mapped_column(String(16))
    progress: Mapped[float] = mapped_column(default=0.0)
    revision: Mapped[int] = mapped_column(default=0)
    modality: Mapped[str] = mapped_column(String(2))
    kind: Mapped[str] = mapped_column(String(8))
    model_id: Mapped[str] = mapped_column(String(64))
    model_sha256: Mapped[str] = mapped_column(String(64))
    profile: Mapped[str] = mapped_column(String(64))
    input_key: Mapped[str] = mapped_column(String(64), index=True)
    content_key: Mapped[str] = mapped_column(String(64))
    live_key: Mapped[str | None] = mapped_column(String(64), unique=True)
    idempotency_key: Mapped[str | None] = mapped_column(String(255))
    actor: Mapped[str] = mapped_column(String(64))
    outcome: Mapped[str | None] = mapped_column(String(16))
    measurements: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    receipt: Mapped[list[Any]]
    notes: Mapped[list[Any]]
    applied: Mapped[list[Any]]
    seconds: Mapped[dict[str, Any]]
    proof: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    engine: Mapped[str | None] = mapped_column(String(64))
    artifacts: Mapped[list[Any]]
    error_code: Mapped[str | None] = mapped_column(String(64))
    error_message: Mapped[str | None]
    attempts: Mapped[int] = mapped_column(default=0)
    deaths: Mapped[int] = mapped_column(default=0)
    worker_id: Mapped[str | None] = mapped_column(String(64))
    cancel_requested: Mapped[bool] = mapped_column(default=False)
    priority: Mapped[str] = mapped_column(String(8), server_default="routine")
    origin: Mapped[str] = mapped_column(String(16), server_default="api")
    destinations: Mapped[list[Any]] = mapped_column(server_default="[]")
    predicted_bytes: Mapped[int | None] = mapped_column(BigInteger)
    created_at: Mapped[datetime]
    updated_at: Mapped[datetime]
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]
    heartbeat_at: Mapped[datetime | None]


class AuditRow(Base):
    """Who did what to which job, and when. Outlives the job."""

    __tablename__ = "audit"

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    at: Mapped[datetime] = mapped_column(index=True)
    actor: Mapped[str] = mapped_column(String(64))
    action: Mapped[str] = mapped_column(String(64))
    job_id: Mapped[str | None] = mapped_column(String(36), index=True)


class ApiKeyRow(Base):
    """An API key: its SHA-256 only (the secret has 256 random bits, so no slow hash is needed)."""

    __tablename__ = "api_keys"

    id: Mapped[str] = mapped_column(String(16), primary_key=True)
    sha256: Mapped[str] = mapped_column(String(64))
    name: Mapped[str | None] = mapped_column(String(64))
    scopes: Mapped[list[Any]]
    created_at: Mapped[datetime]
    revoked_at: Mapped[datetime | None]


class WorkerRow(Base):
    """A worker process; gone from the table when it stopped in order."""

    __tablename__ = "workers"

    id: Mapped[str] = mapped_column(String(64), primary_key=True)
    host: Mapped[str] = mapped_column(String(64))
    engine: Mapped[str | None] = mapped_column(String(64))
    device: Mapped[str | None] = mapped_column(String(128))
    memory_bytes: Mapped[int | None] = mapped_column(BigInteger)
    models: Mapped[list[Any]]
    ready: Mapped[bool] = mapped_column(default=False)
    running: Mapped[int] = mapped_column(default=0)
    started_at: Mapped[datetime]
    heartbeat_at: Mapped[datetime]


class ArrivalRow(Base):
    """``open_key`` is a hash of both UIDs while the series is being received and NULL afterwards:
    one open arrival per series."""

    __tablename__ = "arrivals"
    __table_args__ = (Index("ix_arrivals_state_last", "state", "last_at"),)

    id: Mapped[str] = mapped_column(String(36), primary_key=True)
    origin: Mapped[str] = mapped_column(String(16))
    caller: Mapped[str] = mapped_column(String(64))
    study_uid: Mapped[str] = mapped_column(String(64), index=True)
    series_uid: Mapped[str] = mapped_column(String(64))
    open_key: Mapped[str | None] = mapped_column(String(64), unique=True)
    state: Mapped[str] = mapped_column(String(16))
    instances: Mapped[int] = mapped_column(default=0)
    expected: Mapped[int | None]
    rule: Mapped[str | None] = mapped_column(String(64))
    job_id: Mapped[str | None] = mapped_column(String(36))
    code: Mapped[str | None] = mapped_column(String(64))
    first_at: Mapped[datetime]
    last_at: Mapped[datetime]


class PullRow(Base):
    """``open_key`` is a hash of what is asked until the pull is finished, and NULL afterwards: the
    same is fetched once at a time. ``worker_id`` holds the row until ``lease_until``."""

    __tablename__ = "pulls"
    __table_args__ = (Index("ix_pulls_state_next", "state", "next_at"),)

    id: Mapped[str] = mapped_column(String(36), primary_key=True)
    open_key: Mapped[str | None] = mapped_column(String(64), unique=True)
    node: Mapped[str] = mapped_column(String(64))
    study_uid: Mapped[str] = mapped_column(String(64))
    series_uid: Mapped[str | None] = mapped_column(String(64))
    actor: Mapped[str] = mapped_column(String(64))
    modality: Mapped[str | None] = mapped_column(String(2))
    model: Mapped[str | None] = mapped_column(String(64))
    profile: Mapped[str | None] = mapped_column(String(64))
    destinations: Mapped[list[Any]]
    priority: Mapped[str] = mapped_column(String(8))
    state: Mapped[str] = mapped_column(String(16))
    attempts: Mapped[int] = mapped_column(default=0)
    instances: Mapped[int] = mapped_column(default=0)
    expected: Mapped[int | None]
    code: Mapped[str | None] = mapped_column(String(64))
    job_id: Mapped[str | None] = mapped_column(String(36))
    worker_id: Mapped[str | None] = mapped_column(String(64))
    lease_until: Mapped[datetime | None]
    next_at: Mapped[datetime | None]
    created_at: Mapped[datetime]
    updated_at: Mapped[datetime]


class DeliveryRow(Base):
    """``worker_id`` holds the row until ``lease_until``; after that anybody may send again.

    ``committed``: what the destination reported about the storage commitment of what was sent last,
    NULL until then.
    """

    __tablename__ = "deliveries"
    __table_args__ = (
        Index("uq_deliveries_job_destination", "job_id", "destination", unique=True),
        Index("ix_deliveries_state_next", "state", "next_at"),
    )

    id: Mapped[str] = mapped_column(String(36), primary_key=True)
    job_id: Mapped[str] = mapped_column(String(36))
    destination: Mapped[str] = mapped_column(String(64))
    state: Mapped[str] = mapped_column(String(16))
    attempts: Mapped[int] = mapped_column(default=0)
    worker_id: Mapped[str | None] = mapped_column(String(64))
    lease_until: Mapped[datetime | None]
    next_at: Mapped[datetime | None]
    give_up_at: Mapped[datetime]
    committed: Mapped[bool | None]
    sent: Mapped[list[Any]]
    notes: Mapped[list[Any]]
    code: Mapped[str | None] = mapped_column(String(64))
    created_at: Mapped[datetime]
    updated_at: Mapped[datetime]
    delivered_at: Mapped[datetime | None]


class CommitmentRow(Base):
    """A storage commitment that was asked for what a delivery sent last."""

    __tablename__ = "commitments"

    transaction_uid: Mapped[str] = mapped_column(String(64), primary_key=True)
    delivery_id: Mapped[str] = mapped_column(String(36), index=True)


class BreakerRow(Base):
    """What recent attempts say of a destination, shared by all processes that send."""

    __tablename__ = "breakers"

    destination: Mapped[str] = mapped_column(String(64), primary_key=True)
    failures: Mapped[int] = mapped_column(default=0)
    open_until: Mapped[datetime | None]
