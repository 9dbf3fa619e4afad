"""What the sweep does for arrivals: finish the studies that are complete, forget old ones."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

from ..container import Container
from ..domain import Arrival, ArrivalState
from ..errors import BusyError
from ..observability import get_logger
from .evaluate import evaluate
from .files import ArrivalFiles
from .parts import names_of
from .verdict import judge, settle_s

log = get_logger("service.arrive")

DAY_S = 86400.0
ASIDE_S = 3600.0  # how long the rest of a series that was set aside may be late
PURGE_BATCH = 100


def complete(container: Container) -> None:
    """Evaluate every study that is complete and whose instances lie here. One that fails does not
    stand in the way of the next. While the queue is full they stay as they are: an evaluation
    reads every image."""
    settings = container.settings
    due = container.arrivals.due(
        idle_s=settle_s(settings.quiet_s), abandoned_s=settings.heartbeat_timeout_s
    )
    for study_uid in due:
        if not _has_room(container):
            return
        try:
            _complete(container, study_uid)
        except Exception as error:
            log.error("study_failed", exc_info=error)


def resume(container: Container) -> None:
    """At a start: what was being received when the process ended gets the quiet time anew, in which
    its sender may come again."""
    for arrival_id in ArrivalFiles(container.settings.arrivals_dir).arrival_ids():
        container.arrivals.add(arrival_id)


def tidy(container: Container) -> None:
    """Forget arrivals and drop files that nobody needs: by age, by free disk, and what a kill left
    behind. When the disk is too full, what was set aside goes first, then what failed."""
    settings, store = container.settings, container.arrivals
    files = ArrivalFiles(settings.arrivals_dir)
    for arrival in store.old(older_than_s=settings.retention_days * DAY_S):
        files.drop(arrival.id)
        store.delete(arrival.id)
    for arrival_id in files.arrival_ids():
        full = files.free_bytes() < settings.purge_free_bytes
        if _is_left(store.get(arrival_id), aside_s=0.0 if full else ASIDE_S):
            files.drop(arrival_id)
    for arrival in store.failed(limit=PURGE_BATCH):
        if files.free_bytes() >= settings.purge_free_bytes:
            break
        files.drop(arrival.id)
    files.drop_incoming(older_than_s=DAY_S)


def measure(container: Container) -> None:
    """Refresh the gauge of arrivals."""
    gauge = container.metrics.arrivals_now
    gauge.clear()
    for (origin, state), count in container.arrivals.counts().items():
        gauge.labels(origin, state).set(count)


def _has_room(container: Container) -> bool:
    """Whether the queue takes another job."""
    try:
        container.jobs.admit(queue_limit=container.settings.queue_limit)
    except BusyError:
        return False
    return True


def _complete(container: Container, study_uid: str) -> None:
    settings, store = container.settings, container.arrivals
    seen = store.of_study(study_uid, abandoned_s=settings.heartbeat_timeout_s)
    if not seen or not _lies_here(container, seen):
        return
    earlier = store.finished(study_uid)
    changed_at = max(one.last_at for one in seen)
    verdict = judge(
        _present(container, seen, earlier),
        _archived(container, seen, changed_at),
        idle_s=(datetime.now(UTC) - changed_at).total_seconds(),
        quiet_s=settings.quiet_s,
        done={one.series_uid for one in earlier},
    )
    if verdict.ready and (closed := store.close(seen)):
        evaluate(container, closed, verdict.lacking)


def _lies_here(container: Container, seen: Sequence[Arrival]) -> bool:
    """Whether the files are here, or on another host whose own sweep sees them."""
    files = ArrivalFiles(container.settings.arrivals_dir)
    return all(one.instances == 0 or files.of(one.id) for one in seen)


def _present(
    container: Container, seen: Sequence[Arrival], earlier: Sequence[Arrival]
) -> dict[str, int]:
    """Instances by series UID, those of earlier arrivals of the same series included."""
    have: dict[str, set[str]] = {}
    for one in seen:
        have.setdefault(one.series_uid, set()).update(names_of(container, one, earlier))
    return {uid: len(names) for uid, names in have.items()}


def _archived(
    container: Container, seen: Sequence[Arrival], changed_at: datetime
) -> Mapping[str, int] | None:
    if container.archive is None:
        return None
    counts = container.archive.counts(seen[0].study_uid, changed_at)
    if counts and any(one.expected != counts.get(one.series_uid) for one in seen):
        container.arrivals.expect(seen[0].study_uid, counts)
    return counts


def _is_left(arrival: Arrival | None, *, aside_s: float) -> bool:
    """Whether an arrival's files are of no use: it is gone, or finished with them."""
    if arrival is None or arrival.state is ArrivalState.SUBMITTED:
        return True
    silent_s = (datetime.now(UTC) - arrival.last_at).total_seconds()
    return arrival.state is ArrivalState.SET_ASIDE and silent_s > aside_s
