"""What an acceptance test is asked, and what it finds."""

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Literal, TypeAlias

from model.types import MaskArray

from ..domain import Job
from .write import Written

Through: TypeAlias = Literal["pacs", "forward", "listener"]
"""``pacs``: the phantoms go to the archive, the service fetches them. ``forward``: they go to the
archive, which sends them on by its own rule. ``listener``: they go to our listener."""


@dataclass(frozen=True)
class Plan:
    """``node``: the archive, by its name in the site file. ``destination``: by which results go
    there; found where there is one only. ``only``: names of phantoms, all without any.
    ``listener``: ``HOST:PORT`` or a node. ``calling``: our title towards it. ``timeout_s``: for all
    results together."""

    node: str
    through: Through = "pacs"
    destination: str | None = None
    only: tuple[str, ...] = ()
    listener: str | None = None
    calling: str | None = None
    timeout_s: float = 900.0
    clean: bool = False


class Verdict(StrEnum):
    PASS = "PASS"  # noqa: S105
    FAIL = "FAIL"
    SKIPPED = "SKIPPED"


@dataclass(frozen=True)
class Check:
    """One thing that was looked at: what was found, and what should have been."""

    name: str
    ok: bool
    found: str
    expected: str = ""


@dataclass
class Trial:
    """One phantom on its way. ``pull_id``: the request to fetch it. ``seconds``: by step, in order.
    ``skipped``: why it was not tried. ``notes``: what the service and the delivery say.
    ``returned``: the mask that came back, on the phantom's slices."""

    written: Written
    checks: list[Check] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    skipped: str = ""
    pull_id: str | None = None
    asked_at: datetime | None = None
    job: Job | None = None
    state: str = ""
    ended: bool = False
    returned: MaskArray | None = None

    @property
    def name(self) -> str:
        return self.written.phantom.name

    @property
    def verdict(self) -> Verdict:
        if self.skipped:
            return Verdict.SKIPPED
        passed = self.checks and all(check.ok for check in self.checks)
        return Verdict.PASS if passed else Verdict.FAIL

    def check(self, name: str, ok: bool, found: str, expected: str = "") -> None:
        self.checks.append(Check(name, bool(ok), found, expected))

    def give_up(self, name: str, found: str, expected: str = "") -> None:
        """A check that failed and lets no other follow."""
        self.check(name, False, found, expected)
        self.ended = True


@dataclass(frozen=True)
class Report:
    """A finished test. ``facts``: label and value of what was tested, in order. ``checks``: those
    of no single phantom. ``seconds``: altogether. ``remains``: what lies in the archive now, and
    how it goes."""

    at: datetime
    seconds: float
    facts: tuple[tuple[str, str], ...]
    checks: tuple[Check, ...]
    trials: tuple[Trial, ...]
    studies: tuple[str, ...]
    remains: str

    @property
    def passed(self) -> bool:
        tried = [trial for trial in self.trials if trial.verdict is not Verdict.SKIPPED]
        done = bool(tried) and all(trial.verdict is Verdict.PASS for trial in tried)
        return done and all(check.ok for check in self.checks)
