"""The lane alone, and two jobs that share it. Order is proved by events, never by time."""

import threading
import time
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from model.backends import open_backend
from model.errors import CancelledError
from model.types import Batch
from service import execute, intake
from service.container import Container
from service.domain import Job, Priority, Stage, Status, SubmitOptions
from service.lane import Lane
from service.uploads import Upload

ROUTINE, URGENT = Priority.ROUTINE, Priority.URGENT


def until(condition: Callable[[], bool], seconds: float = 15.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.01)


def nothing() -> None:
    pass


def test_the_urgent_go_first_then_who_came_first() -> None:
    lane, order = Lane(), []
    inside = lane.enter(ROUTINE, nothing)

    def pass_through(name: str, priority: Priority) -> None:
        ticket = lane.enter(priority, nothing)
        order.append(name)
        lane.leave(ticket)

    threads = []
    for number, (name, priority) in enumerate(
        [("first", ROUTINE), ("second", ROUTINE), ("third", URGENT), ("fourth", URGENT)], start=1
    ):
        thread = threading.Thread(target=pass_through, args=(name, priority))
        thread.start()
        threads.append(thread)
        until(lambda waiting=number: lane.waiting == waiting)
    assert (lane.busy, order) == (1, [])
    lane.leave(inside)
    for thread in threads:
        thread.join()
    assert order == ["third", "fourth", "first", "second"]
    assert (lane.busy, lane.waiting) == (0, 0)


def test_who_stops_waiting_is_in_nobodys_way() -> None:
    lane = Lane()
    inside = lane.enter(ROUTINE, nothing)
    looks: list[int] = []

    def still() -> None:
        looks.append(lane.waiting)
        if len(looks) == 2:
            raise CancelledError("stop")

    with pytest.raises(CancelledError, match="stop"):
        lane.enter(URGENT, still)
    assert looks == [1, 1]
    assert lane.waiting == 0
    lane.leave(inside)
    lane.leave(inside)
    lane.leave(lane.enter(ROUTINE, nothing))
    assert lane.busy == 0


def test_a_wider_lane_lets_more_in() -> None:
    lane = Lane(2)
    tickets = [lane.enter(ROUTINE, nothing), lane.enter(ROUTINE, nothing)]
    assert lane.busy == 2
    with pytest.raises(CancelledError):
        lane.enter(ROUTINE, _stop_when(lambda: lane.waiting == 1))
    assert set(tickets) == {0, 1}


def test_shares_together_are_never_more_than_the_whole() -> None:
    lane = Lane()
    big = lane.enter(ROUTINE, nothing, Fraction(2, 3))
    small = lane.enter(ROUTINE, nothing, Fraction(1, 3))
    assert lane.busy == 2
    with pytest.raises(CancelledError):
        lane.enter(ROUTINE, _stop_when(lambda: lane.waiting == 1), Fraction(1, 100))
    lane.leave(small)
    lane.leave(lane.enter(ROUTINE, nothing, Fraction(1, 3)))
    lane.leave(big)
    lane.enter(ROUTINE, nothing, Fraction(7))  # more than the whole: alone
    with pytest.raises(CancelledError):
        lane.enter(URGENT, _stop_when(lambda: lane.busy == 1), Fraction(1, 100))


def test_who_needs_much_is_not_overtaken_by_who_needs_little() -> None:
    lane, order = Lane(), []
    inside = lane.enter(ROUTINE, nothing, Fraction(1, 2))

    def pass_through(name: str, share: Fraction) -> None:
        ticket = lane.enter(ROUTINE, nothing, share)
        order.append(name)
        lane.leave(ticket)

    threads = []
    for number, (name, share) in enumerate(
        [("much", Fraction(1)), ("little", Fraction(1, 4))], start=1
    ):
        threads.append(threading.Thread(target=pass_through, args=(name, share)))
        threads[-1].start()
        until(lambda waiting=number: lane.waiting == waiting)
    assert (lane.busy, order) == (1, [])
    lane.leave(inside)
    for thread in threads:
        thread.join()
    assert order == ["much", "little"]


def test_a_closed_lane_lets_nobody_in() -> None:
    lane = Lane()
    lane.enter(ROUTINE, nothing)
    with pytest.raises(CancelledError, match="broken"):
        lane.enter(ROUTINE, lane.close)
    assert lane.closed
    with pytest.raises(CancelledError, match="broken"):
        lane.enter(URGENT, nothing)
    assert lane.waiting == 0


class Turns:
    """Answers as the real engine does; tells ``arrive`` of each job's first batch, by number."""

    name, engine, precision = "turns", "turns", "f32"

    def __init__(self, container: Container, arrive: Callable[[int], None]) -> None:
        folder = container.models.find(None, "ct")
        self._real = open_backend(folder, "ct", "onnxruntime", threads=1)
        self._arrive = arrive
        self._seen: list[int] = []
        self.inside = self.most = 0

    def logits(self, batch: Batch) -> Batch:
        self.inside += 1
        self.most = max(self.most, self.inside)
        try:
            if threading.get_ident() not in self._seen:
                self._seen.append(threading.get_ident())
                self._arrive(len(self._seen))
            return self._real.logits(batch)
        finally:
            self.inside -= 1


@pytest.fixture
def submit(container: Container, tmp_path: Path, made: Any) -> Callable[..., Job]:
    def make(seed: int, priority: Priority = ROUTINE) -> Job:
        path = made.nifti(tmp_path / f"{seed}.nii", made.phantom(seed=seed))
        return intake.submit(container, Upload((path,)), SubmitOptions("ct", priority=priority))

    return make


def running(container: Container, job: Job) -> threading.Thread:
    thread = threading.Thread(target=execute.run, args=(container, job.id))
    thread.start()
    return thread


def stage_of(container: Container, job: Job) -> Stage | None:
    return container.jobs.require(job.id).stage


def status_of(container: Container, job: Job) -> Status:
    return container.jobs.require(job.id).status


def test_one_infers_while_the_other_reads_and_while_it_writes(
    container: Container, submit: Callable[..., Job]
) -> None:
    first, second = submit(1), submit(2)
    threads: list[threading.Thread] = []

    def arrive(number: int) -> None:
        if number == 1:  # the first stays at the device until the second has read and prepared
            threads.append(running(shared, second))
            until(lambda: stage_of(container, second) is Stage.WAIT)
        else:  # the second stays there until the first has written everything
            until(lambda: status_of(container, first) is Status.SUCCEEDED)

    engine = Turns(container, arrive)
    shared = replace(container, open_backend=lambda *_: engine)
    execute.run(shared, first.id)
    threads[0].join()
    done = container.jobs.require(second.id)
    assert done.status is Status.SUCCEEDED
    assert engine.most == 1
    assert done.seconds["wait"] > 0
    sample = container.metrics.registry.get_sample_value
    assert sample("aqcf_lane_wait_seconds_count", {"priority": "routine"}) == 2


def test_an_urgent_job_is_next_at_the_device(
    container: Container, submit: Callable[..., Job]
) -> None:
    jobs = [submit(1), submit(2), submit(3, URGENT)]
    order: list[int] = []
    threads: list[threading.Thread] = []

    def arrive(number: int) -> None:
        if number == 1:
            for job in jobs[1:]:
                threads.append(running(shared, job))
                until(lambda waiting=job: stage_of(container, waiting) is Stage.WAIT)
        inside = [stage_of(container, job) is Stage.INFERENCE for job in jobs]
        order.append(next(n for n in range(3) if inside[n] and n not in order))

    engine = Turns(container, arrive)
    shared = replace(container, open_backend=lambda *_: engine)
    execute.run(shared, jobs[0].id)
    for thread in threads:
        thread.join()
    assert order == [0, 2, 1]


def test_cancelled_while_it_waits(container: Container, submit: Callable[..., Job]) -> None:
    job = submit(1)
    ticket = container.lane.enter(ROUTINE, nothing)
    thread = running(container, job)
    until(lambda: stage_of(container, job) is Stage.WAIT and container.lane.waiting == 1)
    container.jobs.cancel(job.id)
    thread.join()
    assert status_of(container, job) is Status.CANCELLED
    assert (container.lane.busy, container.lane.waiting) == (1, 0)
    container.lane.leave(ticket)


def test_a_stopping_process_gives_back_what_waits(
    container: Container, submit: Callable[..., Job]
) -> None:
    job = submit(1)
    container.lane.enter(ROUTINE, nothing)
    thread = running(container, job)
    until(lambda: stage_of(container, job) is Stage.WAIT)
    container.queue.stop()
    thread.join()
    again = container.jobs.require(job.id)
    assert (again.status, again.deaths) == (Status.QUEUED, 0)


def test_heartbeats_go_on_while_it_waits(container: Container, submit: Callable[..., Job]) -> None:
    job = submit(1)
    ticket = container.lane.enter(ROUTINE, nothing)
    thread = running(container, job)
    until(lambda: stage_of(container, job) is Stage.WAIT)
    first = container.jobs.require(job.id).heartbeat_at
    assert first is not None
    until(lambda: (container.jobs.require(job.id).heartbeat_at or first) > first)
    container.lane.leave(ticket)
    thread.join()
    assert status_of(container, job) is Status.SUCCEEDED


def _stop_when(condition: Callable[[], bool]) -> Callable[[], None]:
    looks: list[bool] = []

    def still() -> None:
        looks.append(condition())
        if len(looks) == 2:
            assert all(looks)
            raise CancelledError("stop")

    return still
