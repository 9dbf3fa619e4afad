"""Waiting for the service: from the request or the arrival to the confirmed delivery."""

import time
from collections.abc import Callable, Sequence
from datetime import datetime

from ..container import Container
from ..domain import Arrival, ArrivalState, Delivery, DeliveryState, Job, PullState, Status
from .records import Trial
from .way import Way

POLL_S = 0.25
SAY_S = 10.0
Say = Callable[[str], None]


def follow(
    container: Container, way: Way, trials: Sequence[Trial], timeout_s: float, say: Say
) -> None:
    """Until every trial's result is delivered or has failed, at most ``timeout_s`` seconds. Each
    change is said, and every 10 s what is waited for."""
    deadline, said_at = time.monotonic() + timeout_s, time.monotonic()
    while waiting := [trial for trial in trials if not trial.ended]:
        for trial in waiting:
            before = trial.state
            _look(container, way, trial)
            if trial.state != before:
                say(f"{trial.name:<15} {trial.state}")
                said_at = time.monotonic()
        if time.monotonic() > deadline:
            break
        if time.monotonic() - said_at > SAY_S:
            said_at = time.monotonic()
            say(f"waiting for {len(waiting)} of {len(trials)}: {_oldest(waiting)}")
        time.sleep(POLL_S)
    for trial in trials:
        if not trial.ended:
            found = f"still: {trial.state or 'nothing happened'}"
            trial.give_up("in time", found, f"delivered within {timeout_s:g} s")


def _oldest(waiting: Sequence[Trial]) -> str:
    return f"{waiting[0].name} {waiting[0].state}"


def _look(container: Container, way: Way, trial: Trial) -> None:
    job_id = trial.job.id if trial.job else _job_id(container, trial)
    if job_id is None:
        return
    trial.job = container.jobs.get(job_id)
    if trial.job is None:
        trial.give_up("segmented", "the segmentation was deleted meanwhile")
    elif not trial.job.status.finished:
        trial.state = str(trial.job.status)
    elif trial.job.status is Status.SUCCEEDED:
        _look_at_delivery(container, way, trial, trial.job)
    else:
        error = trial.job.error
        why = f"{error.code}: {error.message}" if error else str(trial.job.status)
        trial.state = f"failed ({error.code if error else trial.job.status})"
        trial.give_up("segmented", why)


def _job_id(container: Container, trial: Trial) -> str | None:
    """What was submitted; nothing while the images are on their way, or when they were refused."""
    if trial.pull_id is not None:
        pull = container.pulls.get(trial.pull_id)
        if pull is None or pull.state is PullState.FAILED:
            code = pull.code if pull else "gone"
            trial.state = f"not fetched ({code})"
            trial.give_up("fetched by the service", str(code))
            return None
        if pull.state is not PullState.DONE:
            code = f" ({pull.code}), tried again later" if pull.code else ""
            trial.state = f"being fetched by the service{code}"
            return None
        if pull.job_id is not None:
            return pull.job_id
    return _arrived(container, trial)


def _arrived(container: Container, trial: Trial) -> str | None:
    found = [one for one in container.arrivals.finished(trial.written.study)
             if one.series_uid == trial.written.series]  # fmt: skip
    if not found:
        trial.state = "waiting until the study is complete"
        return None
    newest: Arrival = found[0]
    if newest.state is ArrivalState.SUBMITTED:
        return newest.job_id
    trial.state = f"{newest.state} ({newest.code})"
    trial.give_up("taken by the rules", f"{newest.state}: {newest.code}", "submitted")
    return None


def _look_at_delivery(container: Container, way: Way, trial: Trial, job: Job) -> None:
    """The segmentation has ended; is its result where it should be?"""
    site = container.site
    owed = [one for one in container.deliveries.of_job(job.id)
            if one.destination in site.destinations
            and site.destinations[one.destination].node == way.name]  # fmt: skip
    if not owed:
        trial.state = "segmented, not sent"
        trial.give_up("delivered", f"nothing is owed to {way.name}")
        return
    open_ones = [one for one in owed if not one.state.finished]
    if open_ones:
        code = f" ({open_ones[0].code}), tried again later" if open_ones[0].code else ""
        trial.state = f"{job.outcome}, being delivered{code}"
        return
    _end(trial, job, owed)


def _end(trial: Trial, job: Job, deliveries: Sequence[Delivery]) -> None:
    trial.ended = True
    for delivery in deliveries:
        trial.notes += delivery.notes
        done = delivery.state is DeliveryState.DELIVERED
        ways = sorted({str(item["confirmed_by"]) for item in delivery.sent
                       if item.get("confirmed_by")})  # fmt: skip
        sure = f", confirmed by {', '.join(ways)}" if ways else ""
        found = f"{delivery.state}{sure}" if done else f"{delivery.state} ({delivery.code})"
        trial.check("delivered", done, found, "delivered")
        trial.state = str(delivery.state)
    times = (trial.asked_at, job.created_at, job.started_at, job.finished_at,
             deliveries[0].delivered_at)  # fmt: skip
    steps = ("to the service", "in the queue", "segmented", "delivered")
    for step, start, end in zip(steps, times, times[1:], strict=False):
        if start is not None and end is not None:
            trial.seconds[step] = _between(start, end)


def _between(start: datetime, end: datetime) -> float:
    """Seconds; clocks of two hosts may disagree a little."""
    return max(0.0, (end - start).total_seconds())
