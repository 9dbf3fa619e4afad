"""The queue seam: only a job id crosses it, and the ledger stays the truth."""

from collections.abc import Callable, Collection
from typing import Protocol

from ..domain import Priority
from .inprocess import InProcessQueue

__all__ = ["InProcessQueue", "JobQueue"]


class JobQueue(Protocol):
    """Hands job ids to workers. Losing an id is harmless: the sweep sends it again."""

    def send(self, job_id: str, priority: Priority = Priority.ROUTINE) -> None:
        """Enqueue, urgent jobs before routine ones. A job that waits and is sent again as urgent
        goes before routine ones from now on. A queue that is full or cannot be reached drops the
        id. Never raises for what the queue's server does."""

    def waiting(self) -> Collection[str] | None:
        """Ids that wait here now; ``None`` when the queue's server cannot be asked."""

    def start(self, work: Callable[[str], None]) -> None:
        """Start the workers that this process owns, if any; each calls ``work`` per job id."""

    def stop(self, timeout_s: float = 30.0) -> None:
        """Take no more jobs, ask the running ones to stop, and wait for them."""

    def stopping(self) -> bool:
        """Whether a running job shall stop because its process does."""

    def reachable(self) -> bool:
        """Whether the queue's server answers (``/readyz``)."""

    def alive(self) -> bool:
        """Whether a worker is there to take a job (``/readyz``). Raises what the ledger raises."""
