"""Logs that cannot carry patient data, metrics, and the stage timer.

A log line holds an event name of ours and values under the keys of ``SAFE_KEYS``: ids made here,
codes, counts, seconds. Anything else is dropped, and so is every message of a third party, of which
only the logger's name and the level are kept: DICOM libraries quote header values in theirs.
"""

import logging
import re
import sys
import threading
import traceback
from collections.abc import Iterator, MutableMapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from typing import Any, TextIO

import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.metrics import MetricWrapperBase

# fmt: off
SAFE_KEYS = frozenset({
    "event", "level", "timestamp", "logger", "job_id", "request_id", "worker_id", "actor", "code",
    "status", "outcome", "stage", "modality", "kind", "model", "profile", "engine", "method",
    "route", "status_code", "seconds", "count", "files", "series", "size_bytes", "free_bytes",
    "attempts", "deaths", "queued", "running", "host", "port", "version", "error", "where",
    "action", "destination", "scopes", "arrival_id", "origin", "pull_id",
})
# fmt: on
TOKEN = re.compile(r"[A-Za-z0-9_.:/{}+-]{1,80}")
UID = re.compile(r"\d+(\.\d+){3,}")
LOOPBACK = re.compile(r"127(\.\d+){3}|0\.0\.0\.0")
REDACTED = "[redacted]"
OWN_LOGGERS = ("service", "model")
SECONDS_BUCKETS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 40, 80, 160, 320, 640)

EventDict = MutableMapping[str, Any]


def configure_logging(level: str = "info", stream: TextIO | None = None) -> None:
    """JSON lines on ``stream`` (stderr), for this project's loggers, everybody else's, and for what
    nobody catches."""
    shared: list[Any] = [
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        describe_exception,
        redact,
    ]
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[drop_foreign_message, *shared],
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.JSONRenderer(),
            ],
        )
    )
    logging.captureWarnings(True)
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(logging.WARNING)  # of others, whose words are dropped, only trouble is told
    for name in OWN_LOGGERS:
        logging.getLogger(name).setLevel(level.upper())
    _tell_crashes()


def _tell_crashes() -> None:
    """What nobody catches: Python would print its words, which can quote a header. A hook that
    somebody else has set stays."""
    log = get_logger("service")
    sys.excepthook = lambda _kind, error, _trace: log.critical("crashed", exc_info=error)
    if threading.excepthook is threading.__excepthook__:
        threading.excepthook = lambda found: _thread_crashed(log, found)
    if sys.unraisablehook is sys.__unraisablehook__:
        sys.unraisablehook = lambda found: log.error("unraisable", exc_info=found.exc_value)


def _thread_crashed(log: Any, found: threading.ExceptHookArgs) -> None:
    if not isinstance(found.exc_value, SystemExit):
        log.error("thread_crashed", exc_info=found.exc_value)


def get_logger(name: str) -> Any:
    """A structlog logger; bind only what ``SAFE_KEYS`` names."""
    return structlog.stdlib.get_logger(name)


def redact(_logger: object, _method: str, event: EventDict) -> EventDict:
    """Keep safe keys with plain values; blank anything that could be a UID or free text."""
    return {
        key: value if key.startswith("_") or key in ("event", "timestamp") else _safe(value)
        for key, value in event.items()
        if key in SAFE_KEYS or key.startswith("_")
    }


def drop_foreign_message(_logger: object, _method: str, event: EventDict) -> EventDict:
    """Third parties: where and how serious, never what they said."""
    record = event.get("_record")
    event["logger"] = "unknown" if record is None else record.name
    event["event"] = "third_party"
    return event


def describe_exception(_logger: object, _method: str, event: EventDict) -> EventDict:
    """The class of an exception and where it was raised, without its message."""
    info = event.pop("exc_info", None)
    error = sys.exc_info()[1] if info is True else info[1] if isinstance(info, tuple) else info
    if isinstance(error, BaseException):
        event["error"] = type(error).__name__
        event["where"] = _places(error)
    return event


def _places(error: BaseException) -> str:
    frames = traceback.extract_tb(error.__traceback__)[-3:]
    return "/".join(f"{Path(frame.filename).stem}:{frame.lineno}" for frame in frames)[:80]


def _safe(value: object) -> object:
    if value is None or isinstance(value, bool | int | float):
        return value
    text = str(value)
    if UID.search(text) and not LOOPBACK.fullmatch(text):
        return REDACTED
    return text if TOKEN.fullmatch(text) else REDACTED


@dataclass(frozen=True)
class Metrics:
    """Prometheus metrics of one process, in a registry of their own."""

    registry: CollectorRegistry = field(default_factory=CollectorRegistry)
    jobs: Counter = field(init=False)
    stage_seconds: Histogram = field(init=False)
    rejected: Counter = field(init=False)
    denied: Counter = field(init=False)
    jobs_now: Gauge = field(init=False)
    queue_oldest_seconds: Gauge = field(init=False)
    lane_wait_seconds: Histogram = field(init=False)
    lane_waiting_jobs: Gauge = field(init=False)
    lane_busy_jobs: Gauge = field(init=False)
    memory_waiting_jobs: Gauge = field(init=False)
    device_memory_bytes: Gauge = field(init=False)
    device_memory_used_bytes: Gauge = field(init=False)
    free_bytes: Gauge = field(init=False)
    deliveries_now: Gauge = field(init=False)
    deliveries_failed: Counter = field(init=False)
    delivery_attempts: Counter = field(init=False)
    delivery_seconds: Histogram = field(init=False)
    delivery_oldest_seconds: Gauge = field(init=False)
    breakers_now: Gauge = field(init=False)
    arrivals: Counter = field(init=False)
    arrivals_now: Gauge = field(init=False)
    instances: Counter = field(init=False)
    instance_bytes: Counter = field(init=False)
    associations: Counter = field(init=False)
    pulls_now: Gauge = field(init=False)
    pull_attempts: Counter = field(init=False)
    pulls_failed: Counter = field(init=False)
    pull_seconds: Histogram = field(init=False)

    def __post_init__(self) -> None:
        groups = (self._of_jobs(), self._of_device(), self._of_pacs_in(), self._of_pacs_out())
        for name, metric in (pair for group in groups for pair in group.items()):
            object.__setattr__(self, name, metric)

    def _of_jobs(self) -> dict[str, MetricWrapperBase]:
        return {
            "jobs": self._counter("jobs", "Finished jobs", ("status", "outcome", "modality")),
            "jobs_now": self._gauge("jobs_now", "Jobs in the ledger", ("status",)),
            "stage_seconds": self._seconds(
                "stage_seconds", "Seconds per stage of a job", ("stage", "modality")
            ),
            "queue_oldest_seconds": self._gauge(
                "queue_oldest_seconds", "Age of the job that waits longest in the queue"
            ),
            "rejected": self._counter("rejected", "Uploads refused, by code", ("code",)),
            "denied": self._counter("denied", "Requests turned away", ("status",)),
        }

    def _of_device(self) -> dict[str, MetricWrapperBase]:
        memory = ("device",)
        return {
            "lane_wait_seconds": self._seconds(
                "lane_wait_seconds", "Seconds that a job waited for the device", ("priority",)
            ),
            "lane_waiting_jobs": self._gauge(
                "lane_waiting_jobs", "Jobs of this process that wait for the device"
            ),
            "lane_busy_jobs": self._gauge(
                "lane_busy_jobs", "Jobs of this process that use the device"
            ),
            "memory_waiting_jobs": self._gauge(
                "memory_waiting_jobs", "Jobs of this process that wait for memory"
            ),
            "device_memory_bytes": self._gauge(
                "device_memory_bytes", "Memory of the device", memory
            ),
            "device_memory_used_bytes": self._gauge(
                "device_memory_used_bytes", "Memory of the device in use", memory
            ),
            "free_bytes": self._gauge("free_bytes", "Free disk"),
        }

    def _of_pacs_in(self) -> dict[str, MetricWrapperBase]:
        origin_state = ("origin", "state")
        return {
            "arrivals": self._counter("arrivals", "Series finished", origin_state),
            "arrivals_now": self._gauge("arrivals_now", "Series in the ledger", origin_state),
            "instances": self._counter("instances", "Instances received", ("origin",)),
            "instance_bytes": self._counter("instance_bytes", "Bytes received", ("origin",)),
            "associations": self._counter("associations", "DICOM associations", ("outcome",)),
            "pulls_now": self._gauge("pulls_now", "Pulls in the ledger", ("state",)),
            "pull_attempts": self._counter(
                "pull_attempts", "Attempts to fetch a study, by how they ended", ("node", "result")
            ),
            "pulls_failed": self._counter(
                "pulls_failed", "Pulls given up, by code", ("node", "code")
            ),
            "pull_seconds": self._seconds("pull_seconds", "Seconds per attempt", ("node",)),
        }

    def _of_pacs_out(self) -> dict[str, MetricWrapperBase]:
        one = ("destination",)
        return {
            "deliveries_now": self._gauge(
                "deliveries_now", "Deliveries in the ledger", ("destination", "state")
            ),
            "deliveries_failed": self._counter(
                "deliveries_failed", "Deliveries given up, by code", ("destination", "code")
            ),
            "delivery_attempts": self._counter(
                "delivery_attempts",
                "Attempts to deliver, by how they ended",
                ("destination", "result"),
            ),
            "delivery_seconds": self._seconds(
                "delivery_seconds", "Seconds per attempt, the confirmation included", one
            ),
            "delivery_oldest_seconds": self._gauge(
                "delivery_oldest_seconds", "Age of the oldest unfinished delivery", one
            ),
            "breakers_now": self._gauge(
                "breakers_now", "0 closed, 1 half open, 2 open: nothing is sent", one
            ),
        }

    def _counter(self, name: str, text: str, labels: tuple[str, ...]) -> Counter:
        return Counter(f"aqcf_{name}", text, labels, registry=self.registry)

    def _gauge(self, name: str, text: str, labels: tuple[str, ...] = ()) -> Gauge:
        return Gauge(f"aqcf_{name}", text, labels, registry=self.registry)

    def _seconds(self, name: str, text: str, labels: tuple[str, ...]) -> Histogram:
        return Histogram(
            f"aqcf_{name}", text, labels, buckets=SECONDS_BUCKETS, registry=self.registry
        )


class StageTimer:
    """Seconds per stage, summed when a stage comes twice."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        start = perf_counter()
        try:
            yield
        finally:
            self.add(name, perf_counter() - start)

    def in_order(self, order: Sequence[str] = ()) -> dict[str, float]:
        """Rounded to 0.1 ms, sorted as ``order`` says, the rest behind."""
        places = {name: place for place, name in enumerate(order)}
        names = sorted(self.seconds, key=lambda name: places.get(name, len(places)))
        return {name: round(self.seconds[name], 4) for name in names}

    def add(self, name: str, seconds: float) -> None:
        self.seconds[name] = self.seconds.get(name, 0.0) + seconds
