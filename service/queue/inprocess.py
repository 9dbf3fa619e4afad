"""The queue of a service that is one process: threads, and the order in memory."""

import heapq
import itertools
import queue
import threading
from collections.abc import Callable, Collection

from ..domain import Priority
from ..observability import get_logger

log = get_logger("service.queue")

RANKS = {Priority.URGENT: 0, Priority.ROUTINE: 1}


class InProcessQueue:
    """A bounded queue with worker threads of this process: urgent before routine, in the order
    of sending within each. A job that waits already is not sent twice; sent again as urgent, it is
    lifted."""

    def __init__(self, workers: int, limit: int) -> None:
        self._workers = workers
        self._ids: queue.PriorityQueue[tuple[int, int, str]] = queue.PriorityQueue(limit)
        self._number = itertools.count()
        self._waiting: set[str] = set()
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._threads: list[threading.Thread] = []

    def send(self, job_id: str, priority: Priority = Priority.ROUTINE) -> None:
        with self._lock:
            if self._stopping.is_set():
                return
            if job_id in self._waiting:
                self._lift(job_id, RANKS[priority])
                return
            try:
                self._ids.put_nowait((RANKS[priority], next(self._number), job_id))
            except queue.Full:
                return
            self._waiting.add(job_id)

    def _lift(self, job_id: str, rank: int) -> None:
        """Keeps its number: among urgent ones it goes by when it came."""
        with self._ids.mutex:
            waiting = self._ids.queue
            for index, (old, number, waiter) in enumerate(waiting):
                if waiter == job_id and rank < old:
                    waiting[index] = (rank, number, job_id)
            heapq.heapify(waiting)

    def waiting(self) -> Collection[str]:
        with self._lock:
            return frozenset(self._waiting)

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

    def reachable(self) -> bool:
        return True

    def alive(self) -> bool:
        return not self._stopping.is_set() and any(thread.is_alive() for thread in self._threads)

    def _serve(self, work: Callable[[str], None]) -> None:
        while not self._stopping.is_set():
            try:
                _, _, job_id = self._ids.get(timeout=0.2)
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
