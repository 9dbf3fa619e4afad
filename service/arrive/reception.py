"""One sender's instances on their way into the ledger: an association, or a STOW-RS request."""

import threading
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from ..container import Container
from ..dicom.heads import Head, UnreadableHeadError, read_head
from ..domain import Origin
from ..errors import ServiceError
from ..storage.arrivals import SeriesKey
from ..storage.artifacts import full_disk_told
from .errors import InstanceError, MismatchedInstanceError
from .files import ArrivalFiles

TRIES = 8
MAX_FLUSH_S = 1.0


@dataclass(frozen=True)
class Claim:
    """What a request says of an instance; ``None``: it does not say."""

    sop_class_uid: str | None = None
    sop_instance_uid: str | None = None
    study_uid: str | None = None


NO_CLAIM = Claim()


class Reception:
    """Takes instances from one sender until it is left. Threads may call it.

    Counts reach the ledger about once a second: the files are what counts, and ``take`` returns
    when a file is safe from a kill and from a power cut. The first of a series is counted before,
    so that other hosts, who do not see the files, never take its arrival for an empty one.
    """

    def __init__(self, container: Container, origin: Origin, caller: str) -> None:
        self.files = ArrivalFiles(container.settings.arrivals_dir)
        self._container = container
        self._origin, self._caller = origin, caller
        self._lock = threading.RLock()
        self._open: dict[SeriesKey, str] = {}
        self._pending: Counter[str] = Counter()
        self._counted: set[str] = set()
        self._study = ""
        self._told_at = time.monotonic()
        self._flush_s = flush_s(container.settings.quiet_s)

    def __enter__(self) -> "Reception":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.files.close()
        self._tell()

    def take(self, file: Path, claim: Claim = NO_CLAIM) -> Head:
        """Let a whole DICOM file (PS3.10) join the arrival of its series; ``file`` may be removed
        afterwards. An instance that came before is taken again without effect.

        Raises ``InstanceError``, ``MismatchedInstanceError``, ``StorageFullError``.
        """
        head = _checked(file, claim)
        self._container.artifacts.require_room(self._container.settings.min_free_bytes)
        with self._lock, full_disk_told():
            self._study = head.study_uid
            arrival_id, new = self._place(file, head)
            self._pending[arrival_id] += new
            late = time.monotonic() - self._told_at > self._flush_s
            if late or arrival_id not in self._counted:
                self._tell()
        self._container.metrics.instances.labels(self._origin).inc()
        self._container.metrics.instance_bytes.labels(self._origin).inc(file.stat().st_size)
        return head

    def beat(self) -> None:
        """Show that the sender is still there: no study is complete while it is being sent."""
        with self._lock:
            for key, arrival_id in self._open.items():
                if key.study_uid == self._study:
                    self._pending[arrival_id] += 0
            self._tell()

    def _place(self, file: Path, head: Head) -> tuple[str, bool]:
        """Into the open arrival, and whether it is new there. Whoever closes an arrival looks at
        its files afterwards: a file that is there while the arrival is open cannot be missed."""
        key = SeriesKey(head.study_uid, head.series_uid)
        for _ in range(TRIES):
            arrival_id = self._open.get(key) or self._arrival(key)
            new = self._placed(file, arrival_id, head)
            if self._container.arrivals.is_open(arrival_id):
                return arrival_id, new
            self._open.pop(key, None)
        raise ServiceError("the series opens and closes without end")

    def _placed(self, file: Path, arrival_id: str, head: Head) -> bool:
        try:
            return self.files.place(file, arrival_id, head.sop_instance_uid)
        except FileNotFoundError:  # the folder went with its arrival
            return False

    def _arrival(self, key: SeriesKey) -> str:
        arrival = self._container.arrivals.open(key, self._origin, self._caller)
        self._container.audit.record(self._caller, "receive")
        return self._open.setdefault(key, arrival.id)

    def _tell(self) -> None:
        with self._lock:
            for arrival_id, instances in tuple(self._pending.items()):
                self._container.arrivals.add(arrival_id, instances)
                del self._pending[arrival_id]
                self._counted.add(arrival_id)
            self._told_at = time.monotonic()


def flush_s(quiet_s: float) -> float:
    """Seconds between two signs of life of a sender."""
    return min(MAX_FLUSH_S, quiet_s / 10)


def _checked(file: Path, claim: Claim) -> Head:
    try:
        head = read_head(file)
    except UnreadableHeadError as error:
        raise InstanceError("the instance has no readable header") from error
    said = (
        (claim.sop_class_uid, head.sop_class_uid, "SOP class"),
        (claim.sop_instance_uid, head.sop_instance_uid, "SOP instance"),
        (claim.study_uid, head.study_uid, "study"),
    )
    for claimed, found, what in said:
        if claimed is not None and claimed != found:
            raise MismatchedInstanceError(f"the instance is of another {what} than was said")
    return head
