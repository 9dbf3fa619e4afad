"""The queue seam: only a job id crosses it, and the ledger stays the truth."""

import queue
import threading
from collections.abc import Callable
from typing import Protocol

from .observability import get_logger

log = get_logger("service.queue")


class JobQueue(Protocol):
    """Hands job ids to workers. Losing an id is harmless: the sweep sends it again."""

    def send(self, job_id: str) -> None:
        """Enqueue. A job already waiting here is not sent twice; a full queue drops the id."""

    def start(self, work: Callable[[str], None]) -> None:
        """Start the workers that this process owns, if any; each calls ``work`` per job id."""

    def stop(self, timeout_s: float = 30.0) -> None:
        """Take no more jobs, ask the running ones to stop, and wait for them."""

    def stopping(self) -> bool:
        """Whether a running job shall stop because its process does."""

    def alive(self) -> bool:
        """Whether a worker is there to take a job (``/readyz``)."""


class InProcessQueue:
    """A bounded queue with worker threads of this process."""

    def __init__(self, workers: int, limit: int) -> None:
        self._workers = workers
        self._ids: queue.Queue[str] = queue.Queue(limit)
        self._waiting: set[str] = set()
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._threads: list[threading.Thread] = []

    def send(self, job_id: str) -> None:
        with self._lock:
            if job_id in self._waiting or self._stopping.is_set():
                return
            try:
                self._ids.put_nowait(job_id)
            except queue.Full:
                return
            self._waiting.add(job_id)

    def start(self, work: Callable[[str], None]) -> None:
        for number in range(self._workers):
            thread = threading.Thread(
                target=self._serve, args=(work,), name=f"worker-{number}", daemon=True
            )
            self._threads.append(thread)
            thread.start()

    def stop(self, timeout_s: float = 30.0) -> None:
        self._stopping.set()
        for thread in self._threads:
            thread.join(timeout_s)

    def stopping(self) -> bool:
        return self._stopping.is_set()

    def alive(self) -> bool:
        return not self._stopping.is_set() and any(thread.is_alive() for thread in self._threads)

    def _serve(self, work: Callable[[str], None]) -> None:
        while not self._stopping.is_set():
            try:
                job_id = self._ids.get(timeout=0.2)
            except queue.Empty:
                continue
            self._work_on(job_id, work)

    def _work_on(self, job_id: str, work: Callable[[str], None]) -> None:
        with self._lock:
            self._waiting.discard(job_id)
        try:
            work(job_id)
        except Exception as error:  # a worker outlives whatever one job does to it
            log.error("worker_error", job_id=job_id, exc_info=error)
