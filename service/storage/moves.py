"""The moves of a job from one status to another, as statements; ``jobs`` applies them."""

from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import Update, update

from ..domain import LIVE, Artifact, Finding, JobError, Priority, Status
from .tables import JobRow

WORKER_DIED = JobError(
    "worker_died", "the worker died several times on this job; it is not tried again"
)


def now() -> datetime:
    return datetime.now(UTC)


def ago(seconds: float) -> datetime:
    return now() - timedelta(seconds=seconds)


def move(job_id: str, source: Status, target: Status) -> Update:
    """The compare-and-set: one UPDATE that applies only in the source status."""
    return (
        update(JobRow)
        .where(JobRow.id == job_id, JobRow.status == source.value)
        .values(status=target.value, updated_at=now(), revision=JobRow.revision + 1)
        .execution_options(synchronize_session=False)
    )


def mine(job_id: str, worker_id: str) -> Update:
    """A change of a running job by the worker that has it."""
    statement = move(job_id, Status.RUNNING, Status.RUNNING)
    return statement.where(JobRow.worker_id == worker_id)


def lifted(job_id: str) -> Update:
    """Urgent from now on, as long as it is not finished."""
    return (
        update(JobRow)
        .where(JobRow.id == job_id, JobRow.status.in_([Status.QUEUED.value, Status.RUNNING.value]))
        .values(priority=Priority.URGENT.value, updated_at=now(), revision=JobRow.revision + 1)
        .execution_options(synchronize_session=False)
    )


def finished(status: Status) -> dict[str, Any]:
    """A job that did not succeed makes room for another of the same content."""
    values: dict[str, Any] = {"status": status.value, "finished_at": now(), "stage": None}
    return values if status in LIVE else values | {"live_key": None}


def queued_again() -> dict[str, Any]:
    return {
        "status": Status.QUEUED.value,
        "worker_id": None,
        "stage": None,
        "progress": 0.0,
        "heartbeat_at": None,
        "started_at": None,
    }


def failure(error: JobError) -> dict[str, Any]:
    return {"error_code": error.code, "error_message": error.message}


def after_death(row: JobRow, max_deaths: int) -> tuple[Status, dict[str, Any]]:
    """What becomes of a running job whose worker is dead."""
    if row.cancel_requested:
        return Status.CANCELLED, finished(Status.CANCELLED)
    if row.deaths + 1 >= max_deaths:
        return Status.FAILED, finished(Status.FAILED) | failure(WORKER_DIED)
    return Status.QUEUED, queued_again()


def result_of(finding: Finding) -> dict[str, Any]:
    return {
        "outcome": finding.outcome.value,
        "measurements": dict(finding.measurements),
        "seconds": dict(finding.seconds),
        "engine": finding.engine,
        "applied": list(finding.applied),
        "notes": list(finding.notes),
        "proof": None if finding.proof is None else dict(finding.proof),
        "artifacts": [_plain(artifact) for artifact in finding.artifacts],
        "progress": 1.0,
    }


def _plain(artifact: Artifact) -> dict[str, Any]:
    return asdict(artifact) | {"name": artifact.name.value}
