"""What a running service is made of: one frozen record, passed to every use case.

It lies below the use cases, which take it; ``wiring`` above them builds it. It names no engine, so
whatever imports it (the API, ``intake``) stays clear of inference.
"""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from model.spec import ModelFolder
from model.types import Modality

from .audit import AuditLog
from .lane import Lane
from .observability import Metrics
from .pacs.archive import Archive
from .queue import JobQueue
from .registry import ModelRegistry
from .settings import Settings
from .site import Site
from .storage.arrivals import ArrivalStore
from .storage.artifacts import ArtifactStore
from .storage.database import Database
from .storage.deliveries import DeliveryStore
from .storage.jobs import JobStore
from .storage.keys import KeyStore
from .storage.pulls import PullStore
from .storage.workers import WorkerStore
from .tracing import Tracing

if TYPE_CHECKING:
    from model.backends.base import Backend, Precision


class OpenBackend(Protocol):
    """Gives a loaded engine, the same one for the same question. Raises ``BackendError``."""

    def __call__(
        self, folder: ModelFolder, modality: Modality, precision: "Precision"
    ) -> "Backend": ...


@dataclass(frozen=True)
class Container:
    """``worker_id`` names this process in the ledger. ``archive`` is asked whether a study is
    complete, where the site has one. ``lane``: to the device; ``memory``: shares of what jobs of
    this process may use."""

    settings: Settings
    database: Database
    jobs: JobStore
    workers: WorkerStore
    deliveries: DeliveryStore
    arrivals: ArrivalStore
    pulls: PullStore
    keys: KeyStore
    audit: AuditLog
    artifacts: ArtifactStore
    models: ModelRegistry
    queue: JobQueue
    worker_id: str
    open_backend: OpenBackend
    site: Site = field(default_factory=Site)
    archive: Archive | None = None
    lane: Lane = field(default_factory=Lane)
    memory: Lane = field(default_factory=Lane)
    metrics: Metrics = field(default_factory=Metrics)
    tracing: Tracing = field(default_factory=Tracing)
