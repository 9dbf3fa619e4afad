"""Spans that are not recorded: what a process without a collector has."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime


class Span:
    """Something that takes time."""

    def tell(self, **attributes: object) -> None:
        """Names and plain values as a log line may hold them. ``code``: it failed."""

    def stage(self, name: str) -> None:
        """A part of it begins; the part before has ended."""

    def accepted(self, job_id: str, *, new: bool) -> None:
        """A job came of it, or was there already; the trace of a ``new`` one begins here."""


class Tracing:
    """Makes spans. They may be made in any thread."""

    enabled = False

    @contextmanager
    def span(self, _name: str, _job_id: str | None = None, **_told: object) -> Iterator[Span]:
        """Until the end of the block, which may raise. With a job's id in the trace of the job,
        else below the span around it in this thread or task."""
        yield Span()

    def past(self, _name: str, _job_id: str, _since: datetime) -> None:
        """What has lasted from ``since`` until now, in the trace of a job."""

    def close(self) -> None:
        """Send what is not sent yet, in a few seconds or not at all."""
