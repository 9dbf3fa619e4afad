"""The threads that send: one per destination that has something due, in each process."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from ..container import Container
from ..observability import get_logger
from ..storage.database import UNREACHABLE
from .run import run_destination

LOOK_S = 1.0
LEAVE_S = 15.0  # for all destinations together: a container has 40 s to stop

log = get_logger("service.deliver")


@contextmanager
def delivering(
    container: Container, look_s: float = LOOK_S, leave_s: float = LEAVE_S
) -> Iterator[None]:
    """Send what is due, as it becomes due, until the end of the block; then whatever is not
    finished after ``leave_s`` goes back to be sent by others."""
    senders = _Senders(container, look_s, leave_s)
    senders.start()
    try:
        yield
    finally:
        senders.stop()


class _Senders:
    def __init__(self, container: Container, look_s: float, leave_s: float) -> None:
        self._container = container
        self._look_s, self._leave_s = look_s, leave_s
        self._stop = threading.Event()
        self._busy: dict[str, threading.Thread] = {}
        self._thread = threading.Thread(target=self._look, name="deliver", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()
        deadline = time.monotonic() + self._leave_s
        for thread in self._busy.values():
            thread.join(max(0.0, deadline - time.monotonic()))
        try:
            self._container.deliveries.release(self._container.worker_id)
        except UNREACHABLE as error:  # then the leases end by themselves
            log.warning("release_failed", exc_info=error)

    def _look(self) -> None:
        while not self._stop.wait(self._look_s):
            try:
                for destination in self._container.deliveries.due_destinations():
                    self._send_to(destination)
            except Exception as error:  # the next look may fare better
                log.error("deliver_failed", exc_info=error)

    def _send_to(self, destination: str) -> None:
        if destination in self._busy and self._busy[destination].is_alive():
            return
        thread = threading.Thread(
            target=self._send, args=(destination,), name=f"deliver-{destination}", daemon=True
        )
        self._busy[destination] = thread
        thread.start()

    def _send(self, destination: str) -> None:
        try:
            run_destination(self._container, destination, self._stop.is_set)
        except Exception as error:  # of the ledger; the deliveries themselves are caught below
            log.error("deliver_failed", destination=destination, exc_info=error)
