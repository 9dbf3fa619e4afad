"""A study that somebody asked us to fetch."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from model.types import Modality

from .jobs import Priority


class PullState(StrEnum):
    """``waiting`` before the first try and between two."""

    WAITING = "waiting"
    FETCHING = "fetching"
    DONE = "done"
    FAILED = "failed"

    @property
    def finished(self) -> bool:
        return self in (PullState.DONE, PullState.FAILED)


@dataclass(frozen=True)
class NewPull:
    """What is asked. The UIDs are patient data: they stay in the ledger.

    ``modality``: segment the best series of this modality, or ``series_uid``; ``None``: the rules
    decide on the study, and say model, profile, destinations and priority themselves.
    """

    node: str
    study_uid: str
    actor: str
    series_uid: str | None = None
    modality: Modality | None = None
    model: str | None = None
    profile: str | None = None
    destinations: tuple[str, ...] = ()
    priority: Priority = Priority.ROUTINE


@dataclass(frozen=True)
class Pull:
    """One row of the ledger, as it was when it was read. Times are UTC.

    ``instances``: fetched so far; ``expected``: what the node says there are. ``code``: why it
    failed, or why the last try did. ``job_id``: what was submitted, where no rules were asked.
    """

    id: str
    asked: NewPull
    state: PullState
    attempts: int
    instances: int
    created_at: datetime
    updated_at: datetime
    expected: int | None = None
    code: str | None = None
    job_id: str | None = None
    worker_id: str | None = None
