"""The queue of a service that is one process."""

import pytest
from servers import wait_until

from service.domain import Priority
from service.queue import InProcessQueue


def test_a_queue_outlives_its_work() -> None:
    seen: list[str] = []

    def work(job_id: str) -> None:
        seen.append(job_id)
        raise RuntimeError("a job's own trouble")

    queue = InProcessQueue(workers=1, limit=2)
    for job_id in ("a", "a", "b", "c"):
        queue.send(job_id)
    assert sorted(queue.waiting()) == ["a", "b"]
    queue.start(work)
    wait_until(lambda: len(seen) == 2, "two jobs are not done")
    queue.send("d")
    wait_until(lambda: len(seen) == 3, "the third job is not done")
    assert seen == ["a", "b", "d"]
    assert not queue.waiting()
    assert queue.alive()
    queue.stop()
    queue.send("e")
    assert not queue.alive()
    assert seen == ["a", "b", "d"]


@pytest.mark.parametrize("urgent", [(), ("d",), ("b", "e"), ("e", "a")])
def test_urgent_goes_first_and_each_kind_in_order(urgent: tuple[str, ...]) -> None:
    seen: list[str] = []
    queue = InProcessQueue(workers=1, limit=9)
    routine = [job_id for job_id in "abcde" if job_id not in urgent]
    for job_id in (*routine[:2], *urgent, *routine[2:]):
        queue.send(job_id, Priority.URGENT if job_id in urgent else Priority.ROUTINE)
    queue.start(seen.append)
    wait_until(lambda: len(seen) == 5, "five jobs are not done")
    queue.stop()
    assert seen == [*urgent, *routine]


def test_sent_again_as_urgent_a_waiting_job_is_lifted_and_done_once() -> None:
    seen: list[str] = []
    queue = InProcessQueue(workers=1, limit=4)
    for job_id in "abc":
        queue.send(job_id)
    queue.send("d", Priority.URGENT)
    for _ in range(2):
        queue.send("c", Priority.URGENT)
    queue.send("d")  # never lowered
    queue.start(seen.append)
    wait_until(lambda: len(seen) == 4, "four jobs are not done")
    queue.stop()
    assert seen == ["c", "d", "a", "b"]
