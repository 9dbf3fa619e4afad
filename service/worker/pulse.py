"""What a worker says of itself in the ledger, again and again."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from types import TracebackType

from prometheus_client import Gauge

from ..container import Container
from ..device import DeviceMemory, engine_memory, measure
from ..domain import WorkerInfo
from ..observability import get_logger
from ..storage.database import UNREACHABLE

log = get_logger("service.worker")


class Pulse:
    """This worker's row, from the start of the block to its end. A ledger that is away for a while,
    or takes no writes, is told when it is back."""

    def __init__(self, container: Container) -> None:
        self._container = container
        self._done = threading.Event()
        self._lock = threading.Lock()
        self._started_at = datetime.now(UTC)
        self._engine: str | None = None
        self._running = 0
        self._gauge = Gauge(
            "aqcf_worker_ready",
            "1 while this worker can start a job at once",
            registry=container.metrics.registry,
        )
        self._thread = threading.Thread(target=self._beat, name="pulse", daemon=True)

    def __enter__(self) -> "Pulse":
        self._say()
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._done.set()
        self._thread.join()
        with suppress(*UNREACHABLE):
            self._container.workers.leave(self._container.worker_id)

    def ready(self, engine: str) -> None:
        """From now on this worker can start a job at once."""
        self._engine = engine
        self._say()

    @contextmanager
    def working(self) -> Iterator[None]:
        """Count a job as running here."""
        self._count(1)
        try:
            yield
        finally:
            self._count(-1)

    def _count(self, change: int) -> None:
        with self._lock:
            self._running += change

    def _beat(self) -> None:
        while not self._done.wait(self._container.settings.heartbeat_s):
            try:
                self._tell()
            except Exception as error:  # silence would look like death
                log.warning("heartbeat_failed", exc_info=error)

    def _tell(self) -> None:
        measure(self._container.metrics)
        known = self._container.workers.beat(
            self._container.worker_id, ready=self._is_ready(), running=self._running
        )
        if not known:
            self._say()

    def _say(self) -> None:
        self._container.workers.register(self._info())

    def _is_ready(self) -> bool:
        container = self._container
        ready = not (self._engine is None or container.queue.stopping() or container.lane.closed)
        self._gauge.set(ready)
        return ready

    def _info(self) -> WorkerInfo:
        container, memory = self._container, _memory(self._engine)
        return WorkerInfo(
            id=container.worker_id,
            host=socket.gethostname()[:64],
            engine=self._engine,
            device=None if memory is None else memory.device,
            memory_bytes=_told_bytes(container.settings.device_memory_bytes, memory),
            models=(container.settings.default_model,) if self._engine else (),
            ready=self._is_ready(),
            running=self._running,
            started_at=self._started_at,
            heartbeat_at=datetime.now(UTC),
        )


def _memory(engine: str | None) -> DeviceMemory | None:
    return None if engine is None else engine_memory(engine)


def _told_bytes(setting: int | None, memory: DeviceMemory | None) -> int | None:
    return setting or (None if memory is None else memory.total_bytes)
