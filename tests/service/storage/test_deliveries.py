"""The ledger of deliveries and its breakers: owed with success, claimed once, tried for long."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

import pytest
from servers import wait_until

from service.domain import (
    BreakerState,
    Delivery,
    DeliveryState,
    Finding,
    Job,
    NewJob,
    Outcome,
)
from service.errors import ConflictError, NotFoundError
from service.storage.breakers import BreakerPolicy, BreakerStore
from service.storage.database import Database, open_database
from service.storage.deliveries import DeliveryPolicy, DeliveryStore
from service.storage.jobs import JobStore

FINDING = Finding(Outcome.NO_LESION, {}, {}, "fake")
QUICK = DeliveryPolicy(
    first_s=0.02,
    cap_s=0.05,
    give_up_s=60.0,
    lease_s=600.0,
    breaker=BreakerPolicy(failures=3, open_s=600.0, cap_s=600.0, probe_s=600.0),
)
ME, OTHER = "worker-1", "worker-2"


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    """Every test of this file runs on both."""
    url = f"sqlite:///{tmp_path}/ledger.sqlite3"
    if request.param == "postgresql":
        url = str(request.getfixturevalue("postgres_url"))
    opened = open_database(url)
    opened.upgrade()
    yield opened
    opened.close()


@pytest.fixture
def jobs(database: Database) -> JobStore:
    return JobStore(database)


@pytest.fixture
def deliveries(database: Database) -> DeliveryStore:
    return DeliveryStore(database, QUICK)


def submitted(jobs: JobStore, *destinations: str, content: str = "a") -> Job:
    new = NewJob(
        id=str(uuid4()),
        modality="ct",
        kind="dicom",
        model_id="tiny",
        model_sha256="0" * 64,
        profile="balanced",
        input_key="1" * 64,
        content_key=content,
        destinations=destinations,
    )
    return jobs.create(new, queue_limit=100)[0]


def succeeded(jobs: JobStore, *destinations: str, content: str = "a") -> Job:
    job = submitted(jobs, *destinations, content=content)
    assert jobs.claim(job.id, ME)
    assert jobs.succeed(job.id, ME, FINDING)
    return jobs.require(job.id)


def one(deliveries: DeliveryStore, job: Job) -> Delivery:
    (found,) = deliveries.of_job(job.id)
    return found


def test_success_owes_the_results(jobs: JobStore, deliveries: DeliveryStore) -> None:
    job = submitted(jobs, "pacs", "archive")
    jobs.claim(job.id, ME)
    assert deliveries.of_job(job.id) == ()
    jobs.succeed(job.id, ME, FINDING)
    owed = deliveries.of_job(job.id)
    assert [(found.destination, found.state) for found in owed] == [
        ("archive", DeliveryState.PENDING),
        ("pacs", DeliveryState.PENDING),
    ]
    assert deliveries.due_destinations() == ("archive", "pacs")
    assert deliveries.enqueue(job.id, ["pacs", "third"]) == ("third",)


def test_a_job_that_fails_owes_nothing(jobs: JobStore, deliveries: DeliveryStore) -> None:
    job = submitted(jobs, "pacs")
    jobs.cancel(job.id)
    assert not jobs.succeed(job.id, ME, FINDING)
    assert deliveries.of_job(job.id) == ()


def test_the_same_images_for_another_destination(jobs: JobStore, deliveries: DeliveryStore) -> None:
    running = submitted(jobs, "pacs")
    again = submitted(jobs, "archive")
    assert (again.id, again.destinations) == (running.id, ("pacs", "archive"))
    jobs.claim(running.id, ME)
    jobs.succeed(running.id, ME, FINDING)
    late = submitted(jobs, "archive", "research")
    assert late.id == running.id
    assert [found.destination for found in deliveries.of_job(late.id)] == [
        "archive", "pacs", "research",
    ]  # fmt: skip


def test_only_one_claims(jobs: JobStore, deliveries: DeliveryStore) -> None:
    job = succeeded(jobs, "pacs")
    with ThreadPoolExecutor(8) as pool:
        claims = list(pool.map(lambda n: deliveries.claim("pacs", f"w{n}"), range(8)))
    (claimed,) = [found for found in claims if found]
    assert (claimed.job_id, claimed.state, claimed.attempts) == (job.id, DeliveryState.SENDING, 1)
    assert deliveries.claim("elsewhere", ME) is None


def test_a_dead_sender_is_followed_when_its_lease_ends(
    database: Database, jobs: JobStore, deliveries: DeliveryStore
) -> None:
    job = succeeded(jobs, "pacs")
    dying = DeliveryStore(database, replace(QUICK, lease_s=0.05))
    assert dying.claim("pacs", ME)
    wait_until(lambda: deliveries.claim("pacs", OTHER) is not None, "the lease does not end")
    assert deliveries.due_destinations() == ()
    assert deliveries.claim("pacs", ME) is None
    found = one(deliveries, job)
    assert found.attempts == 2
    assert not deliveries.renew(found.id, ME)
    assert not deliveries.delivered(found.id, ME)
    assert deliveries.delivered(found.id, OTHER)
    assert one(deliveries, job).delivered_at is not None


def test_a_renewed_lease_lasts(
    database: Database, jobs: JobStore, deliveries: DeliveryStore
) -> None:
    job = succeeded(jobs, "pacs")
    assert DeliveryStore(database, replace(QUICK, lease_s=0.05)).claim("pacs", ME)
    assert deliveries.renew(one(deliveries, job).id, ME)
    time.sleep(0.1)
    assert deliveries.claim("pacs", OTHER) is None


def test_a_stopping_process_lets_go(jobs: JobStore, deliveries: DeliveryStore) -> None:
    succeeded(jobs, "pacs")
    deliveries.claim("pacs", ME)
    deliveries.release(ME)
    assert deliveries.claim("pacs", OTHER)


def test_waits_grow_to_a_cap_and_differ() -> None:
    policy = DeliveryPolicy()
    for attempts, whole in [(1, 10), (2, 20), (6, 320), (20, 3600), (10_000, 3600)]:
        waits = [policy.wait(attempts).total_seconds() for _ in range(20)]
        assert all(whole / 2 <= wait <= whole for wait in waits)
        assert len(set(waits)) > 1


def test_postponed_and_given_up(database: Database, jobs: JobStore) -> None:
    deliveries = DeliveryStore(database, replace(QUICK, first_s=30, cap_s=30))
    job = succeeded(jobs, "pacs")
    claimed = deliveries.claim("pacs", ME)
    assert claimed is not None
    assert deliveries.postpone(claimed, ME, "pacs_unavailable")
    found = one(deliveries, job)
    assert (found.state, found.code) == (DeliveryState.PENDING, "pacs_unavailable")
    assert found.next_at is not None
    assert found.next_at - datetime.now(UTC) > timedelta(seconds=10)
    assert deliveries.claim("pacs", ME) is None
    assert found.give_up_at - found.created_at > timedelta(days=2.9)
    assert deliveries.expire() == ()

    hasty = DeliveryStore(database, replace(QUICK, give_up_s=-1))
    hasty.retry(found.id)
    (expired,) = hasty.expire()
    assert (expired.id, expired.state) == (found.id, DeliveryState.FAILED)
    assert hasty.expire() == ()


def test_retry(jobs: JobStore, deliveries: DeliveryStore) -> None:
    job = succeeded(jobs, "pacs")
    delivery_id = one(deliveries, job).id
    deliveries.claim("pacs", ME)
    with pytest.raises(ConflictError) as sending:
        deliveries.retry(delivery_id)
    assert sending.value.code == "delivery_in_progress"
    deliveries.failed(delivery_id, ME, "pacs_refused")
    again = deliveries.retry(delivery_id)
    assert (again.state, again.attempts, again.code) == (DeliveryState.PENDING, 0, None)
    deliveries.claim("pacs", ME)
    assert deliveries.await_commitment(delivery_id, ME, "2.25.1")
    assert deliveries.let_go(delivery_id, ME)
    deliveries.retry(delivery_id)
    assert not deliveries.report_commitment("2.25.1", committed=True), "all is sent again"
    deliveries.claim("pacs", ME)
    deliveries.delivered(delivery_id, ME)
    with pytest.raises(ConflictError) as done:
        deliveries.retry(delivery_id)
    assert done.value.code == "already_delivered"
    with pytest.raises(NotFoundError):
        deliveries.retry("none")


def test_a_deleted_job_cancels(jobs: JobStore, deliveries: DeliveryStore) -> None:
    job = succeeded(jobs, "pacs")
    claimed = deliveries.claim("pacs", ME)
    assert claimed is not None
    assert deliveries.await_commitment(claimed.id, ME, "2.25.1")
    jobs.delete(job.id, lambda _: None)
    assert not deliveries.report_commitment("2.25.1", committed=True)
    assert one(deliveries, job).state is DeliveryState.CANCELLED
    assert not deliveries.delivered(claimed.id, ME)
    with pytest.raises(ConflictError) as gone:
        deliveries.retry(claimed.id)
    assert gone.value.code == "nothing_to_deliver"
    deliveries.forget(older_than_s=3600)
    assert deliveries.of_job(job.id)
    deliveries.forget(older_than_s=0)
    assert deliveries.of_job(job.id) == ()


def test_what_is_owed_is_not_purged(jobs: JobStore, deliveries: DeliveryStore) -> None:
    job = succeeded(jobs, "pacs")
    assert jobs.finished_ids() == ()
    claimed = deliveries.claim("pacs", ME)
    assert claimed is not None
    assert jobs.finished_ids() == ()
    deliveries.delivered(claimed.id, ME)
    assert jobs.finished_ids() == (job.id,)


def test_counts_and_age(jobs: JobStore, deliveries: DeliveryStore) -> None:
    first = succeeded(jobs, "pacs", "archive")
    succeeded(jobs, "pacs", content="b")
    claimed = deliveries.claim("archive", ME)
    assert claimed is not None
    deliveries.delivered(claimed.id, ME)
    assert deliveries.counts() == {
        ("archive", DeliveryState.DELIVERED): 1,
        ("pacs", DeliveryState.PENDING): 2,
    }
    assert 0 <= deliveries.oldest_open_s()["pacs"] < 60
    assert "archive" not in deliveries.oldest_open_s()
    assert len(deliveries.listed(destination="pacs")) == 2
    (delivered,) = deliveries.listed(DeliveryState.DELIVERED)
    assert delivered.job_id == first.id


def test_breaker_opens(deliveries: DeliveryStore) -> None:
    breakers = deliveries.breakers
    assert breakers.admit("pacs")
    assert breakers.failed("pacs") is BreakerState.CLOSED
    assert breakers.failed("pacs") is BreakerState.CLOSED
    assert breakers.admit("pacs")
    assert breakers.failed("pacs") is BreakerState.OPEN
    assert not breakers.admit("pacs")
    assert breakers.admit("archive"), "no destination blocks another"
    breakers.succeeded("pacs")
    assert breakers.states() == {"pacs": BreakerState.CLOSED}
    assert breakers.failed("pacs") is BreakerState.CLOSED


def test_breaker_lets_one_probe_through(database: Database, deliveries: DeliveryStore) -> None:
    brief = BreakerStore(database, BreakerPolicy(failures=1, open_s=0.05, probe_s=600.0))
    brief.failed("pacs")
    wait_until(lambda: brief.state("pacs") is BreakerState.HALF_OPEN, "it stays open")
    with ThreadPoolExecutor(8) as pool:
        admitted = list(pool.map(lambda _: brief.admit("pacs"), range(8)))
    assert admitted.count(True) == 1
    assert brief.failed("pacs") is BreakerState.OPEN, "the probe failed"
    wait_until(lambda: brief.admit("pacs"), "no second probe")
    brief.succeeded("pacs")
    assert deliveries.breakers.admit("pacs")


def test_failures_of_many_processes_add_up(deliveries: DeliveryStore) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: deliveries.breakers.failed("pacs"), range(3)))
    assert deliveries.breakers.state("pacs") is BreakerState.OPEN


def test_an_open_breaker_stops_claims(
    database: Database, jobs: JobStore, deliveries: DeliveryStore
) -> None:
    succeeded(jobs, "pacs")
    for _ in range(3):
        deliveries.breakers.failed("pacs")
    assert deliveries.due_destinations() == ()
    assert deliveries.claim("pacs", ME) is None
    deliveries.breakers.succeeded("pacs")
    BreakerStore(database, BreakerPolicy(failures=1, open_s=0.0)).failed("pacs")
    assert deliveries.due_destinations() == ("pacs",), "half open"
    assert deliveries.claim("pacs", ME)


def test_breakers_open_longer_each_time_up_to_a_cap() -> None:
    policy = BreakerPolicy()
    assert [policy.open_for(n).total_seconds() for n in (5, 6, 9, 10, 5000)] == [
        30, 60, 480, 600, 600,
    ]  # fmt: skip
