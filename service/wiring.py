"""The composition root: a ``Container`` from ``Settings``."""

import fcntl
import os
import socket
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from model.spec import ModelFolder
from model.types import Modality

from . import arrive, execute, sweep
from .audit import AuditLog
from .container import Container, OpenBackend
from .errors import LedgerUnavailableError, RoleSettingsError, StateLockedError
from .lane import Lane
from .pacs.archive import Archive
from .pacs.find import count_instances
from .queue import InProcessQueue, JobQueue
from .registry import ModelRegistry
from .settings import Settings
from .site import Site, load_site
from .storage.arrivals import ArrivalStore
from .storage.artifacts import open_store
from .storage.breakers import BreakerPolicy
from .storage.database import UNREACHABLE, Database, open_database, patiently
from .storage.deliveries import DeliveryPolicy, DeliveryStore
from .storage.jobs import JobStore
from .storage.keys import KeyStore
from .storage.pulls import PullStore
from .storage.workers import WorkerStore
from .tracing import open_tracing

if TYPE_CHECKING:
    from model.backends.base import Backend, Engine, Precision

__all__ = ["BackendCache", "Container", "build", "deployed", "embedded", "state_lock"]

LEDGER_START_S = 60.0


class BackendCache:
    """Loads an engine once per model, modality and precision, and keeps it. Whoever asks for one
    that is being loaded waits; one that hangs while it loads holds up no other."""

    def __init__(self, engine: "Engine", threads: int | None) -> None:
        self._engine = engine
        self._threads = threads
        self._lock = threading.Lock()
        self._loading: dict[tuple[str, str, str], threading.Lock] = {}
        self._loaded: dict[tuple[str, str, str], Backend] = {}

    def __call__(
        self, folder: ModelFolder, modality: Modality, precision: "Precision"
    ) -> "Backend":
        key = (folder.sha256, modality, precision)
        with self._lock:
            loading = self._loading.setdefault(key, threading.Lock())
        with loading:
            if key not in self._loaded:
                self._loaded[key] = self._open(folder, modality, precision)
            return self._loaded[key]

    def _open(self, folder: ModelFolder, modality: Modality, precision: "Precision") -> "Backend":
        from model.backends import open_backend  # noqa: PLC0415  (engines load in a second or two)

        return open_backend(folder, modality, self._engine, precision, self._threads)


def build(
    settings: Settings,
    open_backend: OpenBackend | None = None,
    queue: JobQueue | None = None,
    role: str = "serve",
) -> Container:
    """Everything wired together; no thread of ours runs yet. The ledger's tables are made or
    upgraded. ``role`` names the process in traces.

    The queue is Redis where the settings name one, else in this process. ``open_backend`` replaces
    the engines, in tests. Raises ``LedgerUnavailableError``, ``TracingUnavailableError``.
    """
    site = load_site(settings.site_file)
    worker_id = f"{socket.gethostname()[:24]}-{os.getpid()}-{uuid.uuid4().hex[:6]}"
    tracing = open_tracing(settings.otlp_endpoint, role, worker_id)
    database = _open_ledger(settings)
    keys = KeyStore(database)
    if settings.admin_key:
        keys.adopt(settings.admin_key)
    workers = WorkerStore(database)
    return Container(
        settings=settings,
        database=database,
        jobs=JobStore(database),
        workers=workers,
        deliveries=DeliveryStore(database, _delivery_policy(settings)),
        arrivals=ArrivalStore(database),
        pulls=PullStore(database),
        keys=keys,
        audit=AuditLog(database),
        artifacts=open_store(settings),
        models=ModelRegistry(settings.models_dir, settings.default_model),
        queue=queue or _queue(settings, workers),
        worker_id=worker_id,
        open_backend=open_backend or BackendCache(settings.engine, settings.threads),
        site=site,
        archive=_archive(settings, site),
        lane=Lane(settings.lanes),
        tracing=tracing,
    )


def _open_ledger(settings: Settings) -> Database:
    """A database server may start at the same time as this process."""
    database = open_database(settings.ledger_url)
    try:
        patiently(database.upgrade, LEDGER_START_S if settings.database_url else 0.0)
    except UNREACHABLE as error:
        raise LedgerUnavailableError(
            "the ledger cannot be opened; check AQCF_DATABASE_URL or the state folder, and that "
            "the database server runs"
        ) from error
    return database


def _delivery_policy(settings: Settings) -> DeliveryPolicy:
    """A sender that is silent for as long as a silent worker counts as dead, and so does one that
    was to find out whether a destination is back."""
    silence_s = settings.heartbeat_timeout_s
    return DeliveryPolicy(lease_s=silence_s, breaker=BreakerPolicy(probe_s=silence_s))


def _archive(settings: Settings, site: Site) -> Archive | None:
    """The node that is asked whether a study is complete, where the site names one."""
    if site.archive is None:
        return None
    node = site.nodes[site.archive]
    return Archive(lambda study_uid: count_instances(node, study_uid, calling=settings.ae_title))


def _queue(settings: Settings, workers: WorkerStore) -> JobQueue:
    if settings.redis_url is None:
        return InProcessQueue(settings.workers, settings.queue_limit)
    from .queue.celery import CeleryQueue  # noqa: PLC0415  (an embedded service needs no Celery)

    return CeleryQueue(settings, workers)


@contextmanager
def deployed(settings: Settings, role: str = "deployed") -> Iterator[Container]:
    """One of several processes over one ledger, queue and store. Redis may be away at the start.

    Raises ``RoleSettingsError`` when the settings name no queue, ``LedgerUnavailableError``,
    ``StateLockedError`` when an embedded service holds the state folder.
    """
    if settings.redis_url is None:
        raise RoleSettingsError(
            "gateway, worker and listener meet at a Redis; set AQCF_REDIS_URL, or use `aqcf serve`"
        )
    with state_lock(settings.state_dir, shared=True):
        container = build(settings, role=role)
        container.artifacts.drop_abandoned()
        try:
            yield container
        finally:
            container.database.close()
            container.tracing.close()


@contextmanager
def embedded(settings: Settings, open_backend: OpenBackend | None = None) -> Iterator[Container]:
    """The whole service in this process: workers and sweep run until the end of the block.

    Raises ``StateLockedError`` when another process serves from the state folder. Whatever a dead
    process left running is recovered before anything else.
    """
    with state_lock(settings.state_dir):
        queue = InProcessQueue(settings.workers, settings.queue_limit)
        container = build(settings, open_backend, queue)
        container.artifacts.clear_staging()
        arrive.resume(container)
        alone = settings.database_url is None  # a server's ledger may have other workers
        sweep.recover(container, silent_s=0.0 if alone else settings.heartbeat_timeout_s)
        sweep.run_once(container)
        container.queue.start(lambda job_id: execute.run(container, job_id))
        sweep.resend(container, older_than_s=0.0)
        try:
            with sweep.sweeping(container):
                yield container
        finally:
            container.queue.stop()
            container.database.close()
            container.tracing.close()


@contextmanager
def state_lock(state_dir: Path, *, shared: bool = False) -> Iterator[None]:
    """Hold the state folder, alone or with others that share it; the system lets go of it however
    the process ends."""
    state_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    with (state_dir / "lock").open("w") as stream:
        try:
            fcntl.flock(stream, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except OSError as error:
            raise StateLockedError(
                f"another process serves from {state_dir}; stop it or choose another --state"
            ) from error
        yield
