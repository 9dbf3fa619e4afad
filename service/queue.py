"""The queue seam: only a job id crosses it, and the ledger stays the truth."""

from typing import Protocol


class JobQueue(Protocol):
    """Hands job ids to workers. Losing an id is harmless: the sweep sends it again."""

    def send(self, job_id: str) -> None:
        """Enqueue. A job already waiting here is not sent twice; a full queue drops the id."""

    def start(self) -> None:
        """Start the workers that this process owns, if any."""

    def stop(self, timeout_s: float = 30.0) -> None:
        """Take no more jobs and wait for the running one."""

    def alive(self) -> bool:
        """Whether a worker is there to take a job (``/readyz``)."""
