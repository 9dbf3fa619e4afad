"""The claim of a delivery, kept while it is worked on."""

import threading
from collections.abc import Callable

from ..container import Container
from .attempt import GivenUpError


class Lease:
    """Renews a claim until the end of the block; ``alive`` raises ``GivenUpError`` once it is lost
    or ``stopping`` says so."""

    def __init__(
        self, container: Container, delivery_id: str, stopping: Callable[[], bool]
    ) -> None:
        self._container = container
        self._delivery_id = delivery_id
        self._stopping = stopping
        self._done, self._lost = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._renew, name="lease", daemon=True)

    def __enter__(self) -> "Lease":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def alive(self) -> None:
        if self._lost.is_set() or self._stopping():
            raise GivenUpError

    def _renew(self) -> None:
        deliveries = self._container.deliveries
        while not self._done.wait(deliveries.policy.lease_s / 3):
            try:
                if not deliveries.renew(self._delivery_id, self._container.worker_id):
                    self._lost.set()
            except Exception:  # noqa: S112  (the ledger is away; the lease ends by itself)
                continue
