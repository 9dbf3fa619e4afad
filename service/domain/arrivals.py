"""A series on its way in from a PACS or a modality."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from .jobs import Origin


class ArrivalState(StrEnum):
    """``receiving`` until the study is complete; then what became of the series."""

    RECEIVING = "receiving"
    SUBMITTED = "submitted"
    SET_ASIDE = "set_aside"
    FAILED = "failed"

    @property
    def finished(self) -> bool:
        return self is not ArrivalState.RECEIVING


@dataclass(frozen=True)
class Arrival:
    """One series of one study. The UIDs are patient data: they stay in the ledger.

    ``instances``: received so far. ``expected``: what the archive says there are, where it says
    so. ``rule``: the name of the rule that decided. ``job_id``: what was submitted. ``code``: why
    nothing was.
    """

    id: str
    origin: Origin
    caller: str
    study_uid: str
    series_uid: str
    state: ArrivalState
    instances: int
    first_at: datetime
    last_at: datetime
    expected: int | None = None
    rule: str | None = None
    job_id: str | None = None
    code: str | None = None
