"""Ids through a real Redis: in order, at most as many as there are jobs, and whatever it does."""

import signal
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from servers import RedisServer
from structlog.testing import capture_logs

from service import sweep, wiring
from service.container import Container
from service.domain import Priority, SubmitOptions
from service.intake import submit
from service.queue.celery import ANSWER_S, KEYS, CeleryQueue, make_app
from service.settings import Settings
from service.uploads import Upload


@pytest.fixture
def queue(container: Container, broker: RedisServer) -> Iterator[CeleryQueue]:
    settings = container.settings.model_copy(update={"redis_url": broker.url})
    made = CeleryQueue(settings, container.workers)
    with capture_logs():  # unconfigured, structlog draws every traceback for seconds
        yield made
    made.close()


@pytest.fixture
def queued(tmp_path: Path, container: Container, made: Any) -> list[str]:
    """Jobs in the ledger, one of them urgent."""
    priorities = (Priority.ROUTINE, Priority.URGENT, Priority.ROUTINE)
    return [
        submit(container, Upload((nifti,)), SubmitOptions("ct", priority=priority)).id
        for seed, priority in enumerate(priorities)
        for nifti in [made.nifti(tmp_path / f"{seed}.nii", made.phantom(seed=seed))]
    ]


def test_an_id_crosses_and_nothing_else(queue: CeleryQueue, broker: RedisServer) -> None:
    queue.send("routine-job")
    queue.send("urgent-job", Priority.URGENT)
    assert queue.waiting() == {"routine-job", "urgent-job"}
    with broker.client() as client:
        assert [client.llen(key) for key in KEYS] == [1, 1]
        assert b"urgent-job" in client.lindex(KEYS[0], 0)
        assert all(key.startswith(b"aqcf:") for key in client.scan_iter())
    broker.flush()
    assert queue.waiting() == set()


def test_redis_holds_no_more_messages_than_there_are_jobs(
    container: Container, queue: CeleryQueue, broker: RedisServer, queued: list[str]
) -> None:
    there = replace(container, queue=queue)
    for _ in range(5):
        sweep.resend(there, older_than_s=0.0)
    assert queue.waiting() == set(queued)
    with broker.client() as client:
        assert sum(client.llen(key) for key in KEYS) == len(queued)
        client.delete(KEYS[1])
    sweep.resend(there, older_than_s=0.0)
    assert queue.waiting() == set(queued)


def test_the_same_upload_as_urgent_lifts_what_waits(
    tmp_path: Path, container: Container, queue: CeleryQueue, broker: RedisServer, made: Any
) -> None:
    there = replace(container, queue=queue)
    upload = Upload((made.nifti(tmp_path / "a.nii"),))
    first = submit(there, upload, SubmitOptions("ct"))
    for _ in range(3):
        again = submit(there, upload, SubmitOptions("ct", priority=Priority.URGENT))
        assert (again.id, again.priority) == (first.id, Priority.URGENT)
        with broker.client() as client:
            assert [client.llen(key) for key in KEYS] == [1, 1]
    lowered = submit(there, upload, SubmitOptions("ct"))
    assert lowered.priority is Priority.URGENT
    assert queue.waiting() == {first.id}


def test_a_redis_that_is_away_delays_nobody(queue: CeleryQueue, broker: RedisServer) -> None:
    queue.send("before")
    broker.kill()
    try:
        start = time.monotonic()
        queue.send("lost")
        assert not queue.reachable()
        assert queue.waiting() is None
        assert time.monotonic() - start < 1.0
    finally:
        broker.start()
    queue.send("after")
    assert queue.waiting() == {"after"}


def test_a_redis_that_hangs_delays_for_seconds(queue: CeleryQueue, broker: RedisServer) -> None:
    queue.send("before")
    broker.send_signal(signal.SIGSTOP)
    try:
        start = time.monotonic()
        queue.send("lost")
        assert time.monotonic() - start < ANSWER_S + 1.0
    finally:
        broker.send_signal(signal.SIGCONT)
    queue.send("after")
    assert queue.reachable()


def test_messages_outlive_the_longest_job() -> None:
    settings = Settings(redis_url="redis://127.0.0.1:1/0")
    conf = make_app(settings).conf
    assert conf.broker_transport_options["visibility_timeout"] > settings.job_hard_limit_s
    assert conf.task_acks_late
    assert conf.worker_prefetch_multiplier == 1
    assert not conf.worker_enable_remote_control


def test_settings_choose_the_queue(settings: Settings, broker: RedisServer) -> None:
    there = wiring.build(settings.model_copy(update={"redis_url": broker.url}))
    assert isinstance(there.queue, CeleryQueue)
    assert not there.queue.alive()
    there.queue.close()
    there.database.close()
