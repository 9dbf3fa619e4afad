"""Rows of the jobs table to frozen records and back; cursors of listings."""

import base64
import binascii
import re
from datetime import datetime, timedelta
from typing import Any, cast

from sqlalchemy import Select

from model.errors import InputError
from model.types import Modality

from ..domain import (
    Artifact,
    ArtifactName,
    InputKind,
    Job,
    JobError,
    JobFilter,
    NewJob,
    Origin,
    Outcome,
    Priority,
    Stage,
    Status,
)
from .tables import JobRow

JOB_ID = re.compile(r"[0-9a-f-]{32,36}")


def row_of(new: NewJob, now: datetime) -> JobRow:
    """A queued row."""
    return JobRow(
        id=new.id,
        status=Status.QUEUED.value,
        modality=new.modality,
        kind=new.kind,
        model_id=new.model_id,
        model_sha256=new.model_sha256,
        profile=new.profile,
        input_key=new.input_key,
        content_key=new.content_key,
        live_key=new.content_key,
        idempotency_key=new.idempotency_key,
        actor=new.actor,
        priority=new.priority.value,
        origin=new.origin.value,
        destinations=list(new.destinations),
        predicted_bytes=new.predicted_bytes,
        receipt=[dict(line) for line in new.receipt],
        notes=list(new.notes),
        applied=[],
        seconds={},
        artifacts=[],
        created_at=now,
        updated_at=now,
        progress=0.0,
        revision=0,
        attempts=0,
        deaths=0,
        cancel_requested=False,
    )


def job_of(row: JobRow) -> Job:
    return Job(
        id=row.id,
        status=Status(row.status),
        modality=cast(Modality, row.modality),
        kind=cast(InputKind, row.kind),
        model_id=row.model_id,
        model_sha256=row.model_sha256,
        profile=row.profile,
        input_key=row.input_key,
        content_key=row.content_key,
        created_at=row.created_at,
        updated_at=row.updated_at,
        revision=row.revision,
        started_at=row.started_at,
        finished_at=row.finished_at,
        heartbeat_at=row.heartbeat_at,
        stage=None if row.stage is None else Stage(row.stage),
        progress=row.progress,
        outcome=None if row.outcome is None else Outcome(row.outcome),
        measurements=row.measurements,
        receipt=tuple(row.receipt),
        notes=tuple(row.notes),
        applied=tuple(row.applied),
        seconds=row.seconds,
        proof=row.proof,
        engine=row.engine,
        error=None if row.error_code is None else JobError(row.error_code, row.error_message or ""),
        attempts=row.attempts,
        deaths=row.deaths,
        worker_id=row.worker_id,
        cancel_requested=row.cancel_requested,
        idempotency_key=row.idempotency_key,
        actor=row.actor,
        priority=Priority(row.priority),
        origin=Origin(row.origin),
        destinations=tuple(row.destinations),
        predicted_bytes=row.predicted_bytes,
        artifacts=tuple(_artifact(plain) for plain in row.artifacts),
    )


def matching(statement: Select[Any], wanted: JobFilter) -> Select[Any]:
    """The statement narrowed to what is wanted."""
    columns = {
        JobRow.status: wanted.status,
        JobRow.modality: wanted.modality,
        JobRow.outcome: wanted.outcome,
        JobRow.actor: wanted.actor,
    }
    for column, value in columns.items():
        if value is not None:
            statement = statement.where(column == str(value))
    return statement


def cursor_of(job: Job) -> str:
    """An opaque place in a listing: right after this job."""
    return base64.urlsafe_b64encode(f"{job.created_at.isoformat()}|{job.id}".encode()).decode()


def place_of(cursor: str) -> tuple[datetime, str]:
    """Raises ``InputError`` (``invalid_cursor``) for anything that ``cursor_of`` cannot have made:
    PostgreSQL would refuse a NUL in an id."""
    try:
        when, _, job_id = base64.urlsafe_b64decode(cursor.encode()).decode().partition("|")
        created_at = datetime.fromisoformat(when)
    except (ValueError, binascii.Error) as error:
        raise _foreign_cursor() from error
    if created_at.utcoffset() != timedelta(0) or not JOB_ID.fullmatch(job_id):
        raise _foreign_cursor()
    return created_at, job_id


def _foreign_cursor() -> InputError:
    return InputError("the cursor was not made by this service", code="invalid_cursor")


def _artifact(plain: dict[str, Any]) -> Artifact:
    return Artifact(ArtifactName(plain["name"]), int(plain["size"]), str(plain["sha256"]))
