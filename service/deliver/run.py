"""What is due, sent, and how each attempt is written down."""

from collections.abc import Callable
from time import perf_counter

from model.errors import AqcfError

from ..container import Container
from ..domain import BreakerState, Delivery, DeliveryState, Job
from ..errors import NotConfirmedError, UndeliverableError
from ..observability import get_logger
from ..pacs.confirm import PATIENCE, Patience
from ..pacs.errors import PacsRefusedError, PacsUnavailableError
from .attempt import Attempt, GivenUpError
from .lease import Lease

DAY_S = 86400.0
INTERNAL = "internal_error"
BREAKERS = {BreakerState.CLOSED: 0, BreakerState.HALF_OPEN: 1, BreakerState.OPEN: 2}

log = get_logger("service.deliver")


def enqueue(container: Container, job: Job) -> tuple[str, ...]:
    """Owe a succeeded job's results to those of its destinations that were not owed them before.
    (The ledger does so by itself when a job succeeds.)"""
    return container.deliveries.enqueue(job.id, job.destinations)


def run_once(container: Container) -> None:
    """Send everything that is due, one destination after the other."""
    for destination in container.deliveries.due_destinations():
        run_destination(container, destination)


def run_destination(
    container: Container,
    destination: str,
    stopping: Callable[[], bool] = lambda: False,
    patience: Patience = PATIENCE,
) -> None:
    """Send what is due to a destination, until nothing is, or its breaker opens."""
    deliveries = container.deliveries
    while not stopping():
        delivery = deliveries.claim(destination, container.worker_id)
        if delivery is None:
            return
        _deliver(container, delivery, stopping, patience)


def tidy(container: Container) -> None:
    """Fail what was tried for too long, and forget what is finished and whose job is gone."""
    for delivery in container.deliveries.expire():
        _tell(container, delivery, "failed", delivery.code)
    older_than_s = container.settings.retention_days * DAY_S
    container.deliveries.forget(older_than_s=older_than_s)


def measure(container: Container) -> None:
    """Refresh the gauges. Also of destinations that the ledger has nothing for: a step from
    nothing to one is none to Prometheus."""
    metrics, deliveries = container.metrics, container.deliveries
    counts, ages = deliveries.counts(), deliveries.oldest_open_s()
    breakers = deliveries.breakers.states()
    for gauge in (metrics.deliveries_now, metrics.delivery_oldest_seconds):
        gauge.clear()
    now, known = metrics.deliveries_now.labels, {name for name, _ in counts}
    for destination in known.union(container.site.destinations, breakers, ages):
        for state in DeliveryState:
            now(destination, state).set(counts.get((destination, state), 0))
        breaker = breakers.get(destination, BreakerState.CLOSED)
        metrics.breakers_now.labels(destination).set(BREAKERS[breaker])
        metrics.delivery_oldest_seconds.labels(destination).set(ages.get(destination, 0.0))


def _deliver(
    container: Container, delivery: Delivery, stopping: Callable[[], bool], patience: Patience
) -> None:
    start = perf_counter()
    told = {"destination": delivery.destination, "attempts": delivery.attempts}
    with (
        container.tracing.span("delivery", delivery.job_id, **told) as span,
        Lease(container, delivery.id, stopping) as lease,
    ):
        word, code = _try(container, delivery, lease, patience)
        span.tell(outcome=word, code=code)
    seconds = round(perf_counter() - start, 3)
    container.metrics.delivery_seconds.labels(delivery.destination).observe(seconds)
    _tell(container, delivery, word, code, seconds)


def _try(
    container: Container, delivery: Delivery, lease: Lease, patience: Patience
) -> tuple[str, str | None]:
    """One word for what became of it, and the code of what went wrong."""
    deliveries, breakers = container.deliveries, container.deliveries.breakers
    me, name = container.worker_id, delivery.destination
    try:
        Attempt(container, delivery, lease.alive, patience).run()
    except GivenUpError:
        return _given_up(container, delivery), None
    except PacsUnavailableError as error:
        breakers.failed(name)
        deliveries.postpone(delivery, me, error.code)
        return "postponed", error.code
    except (PacsRefusedError, UndeliverableError) as error:
        breakers.succeeded(name)
        deliveries.failed(delivery.id, me, error.code)
        return "failed", error.code
    except NotConfirmedError as error:
        breakers.succeeded(name)
        deliveries.postpone(delivery, me, error.code)
        return "postponed", error.code
    except Exception as error:
        code = error.code if isinstance(error, AqcfError) else INTERNAL
        if code == INTERNAL:
            log.error("delivery_error", job_id=delivery.job_id, destination=name, exc_info=error)
        deliveries.postpone(delivery, me, code)
        return "postponed", code
    breakers.succeeded(name)
    return ("delivered" if deliveries.delivered(delivery.id, me) else "lost"), None


def _given_up(container: Container, delivery: Delivery) -> str:
    """Deleted: cancel. Told to stop: to others, at once. Lost: it is not ours any more."""
    deliveries, me = container.deliveries, container.worker_id
    if container.jobs.get(delivery.job_id) is None:
        deliveries.cancelled(delivery.id, me)
        return "cancelled"
    return "released" if deliveries.let_go(delivery.id, me) else "lost"


def _tell(
    container: Container, delivery: Delivery, word: str, code: str | None, seconds: float = 0.0
) -> None:
    name = delivery.destination
    container.metrics.delivery_attempts.labels(name, word).inc()
    if word == "failed":
        container.metrics.deliveries_failed.labels(name, code).inc()
    say = log.info if word == "delivered" else log.warning
    say(
        word,
        job_id=delivery.job_id,
        destination=name,
        attempts=delivery.attempts,
        code=code,
        seconds=seconds,
    )
