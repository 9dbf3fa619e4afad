"""A process that does jobs, as the ledger knows it."""

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True)
class WorkerInfo:
    """``ready``: a model is loaded and warmed, so that the next job can start at once.

    ``device``: such as ``cpu`` or the GPU's name. ``memory_bytes``: what the device has.
    ``models``: ids of the loaded ones.
    """

    id: str
    host: str
    engine: str | None
    device: str | None
    memory_bytes: int | None
    models: tuple[str, ...]
    ready: bool
    running: int
    started_at: datetime
    heartbeat_at: datetime
