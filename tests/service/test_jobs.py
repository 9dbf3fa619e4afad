"""The ledger: compare-and-set moves, one live job per content, and what survives a death."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from model.errors import InputError
from service.domain import (
    Artifact,
    ArtifactName,
    Finding,
    Job,
    JobError,
    JobFilter,
    NewJob,
    Outcome,
    Priority,
    Stage,
    Status,
)
from service.errors import BusyError, ConflictError, IdempotencyKeyReusedError, NotFoundError
from service.storage.database import Database, open_database
from service.storage.jobs import JobStore
from service.storage.keys import KeyStore
from service.storage.tables import Base

FINDING = Finding(
    outcome=Outcome.NO_LESION,
    measurements={"liver_ml": 1500.0},
    seconds={"read": 0.5},
    engine="fake",
    artifacts=(Artifact(ArtifactName.MASK, 10, "00"),),
)


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Every test of this file runs on both."""
    if request.param == "postgresql":
        return str(request.getfixturevalue("postgres_url"))
    return f"sqlite:///{tmp_path}/ledger.sqlite3"


@pytest.fixture
def database(url: str) -> Iterator[Database]:
    opened = open_database(url)
    opened.upgrade()
    yield opened
    opened.close()


@pytest.fixture
def jobs(database: Database) -> JobStore:
    return JobStore(database)


def new_job(content: str = "a", **changes: object) -> NewJob:
    made = NewJob(
        id=str(uuid4()),
        modality="ct",
        kind="nifti",
        model_id="tiny",
        model_sha256="0" * 64,
        profile="balanced",
        input_key=content * 64,
        content_key=content * 64,
    )
    return replace(made, **changes)  # type: ignore[arg-type]


def queued(jobs: JobStore, content: str = "a", **changes: object) -> Job:
    job, created = jobs.create(new_job(content, **changes), queue_limit=10)
    assert created
    return job


def test_the_migrations_make_the_tables(database: Database) -> None:
    with database.engine.connect() as connection:
        context = MigrationContext.configure(connection)
        assert compare_metadata(context, Base.metadata) == []
    database.upgrade()


def test_a_job_goes_its_way(jobs: JobStore) -> None:
    job = queued(jobs)
    assert job.status is Status.QUEUED

    claimed = jobs.claim(job.id, "w")
    assert claimed is not None
    assert (claimed.status, claimed.attempts, claimed.stage) == (Status.RUNNING, 1, Stage.READ)
    assert jobs.beat(job.id, "w", stage=Stage.INFERENCE, progress=0.5)
    assert jobs.require(job.id).progress == 0.5
    assert jobs.succeed(job.id, "w", FINDING)

    done = jobs.require(job.id)
    assert (done.status, done.outcome) == (Status.SUCCEEDED, Outcome.NO_LESION)
    assert done.artifact(ArtifactName.MASK) == FINDING.artifacts[0]
    assert done.artifact(ArtifactName.SEG) is None
    assert done.finished_at is not None
    assert done.finished_at >= done.created_at
    assert done.revision > claimed.revision


def test_one_of_many_claims(jobs: JobStore) -> None:
    job = queued(jobs)
    with ThreadPoolExecutor(8) as pool:
        claims = list(pool.map(lambda number: jobs.claim(job.id, f"w{number}"), range(8)))
    assert sum(claim is not None for claim in claims) == 1


def test_only_the_owner_moves_a_running_job(jobs: JobStore) -> None:
    job = queued(jobs)
    jobs.claim(job.id, "w")
    error = JobError("x", "y")
    assert not jobs.beat(job.id, "other")
    assert not jobs.succeed(job.id, "other", FINDING)
    assert not jobs.fail(job.id, "other", error)
    assert not jobs.release(job.id, "other")
    assert jobs.recover(job.id, "other", max_deaths=3) is None
    assert jobs.fail(job.id, "w", error)
    assert jobs.require(job.id).error == error
    assert not jobs.succeed(job.id, "w", FINDING)


def test_the_same_content_is_one_job(jobs: JobStore) -> None:
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda _: jobs.create(new_job(), queue_limit=10), range(8)))
    assert len({job.id for job, _ in made}) == 1
    assert sum(created for _, created in made) == 1


@pytest.mark.parametrize("end", ["failed", "cancelled"])
def test_a_job_that_came_to_nothing_may_be_submitted_again(jobs: JobStore, end: str) -> None:
    first = queued(jobs)
    if end == "failed":
        jobs.claim(first.id, "w")
        jobs.fail(first.id, "w", JobError("x", "y"))
    else:
        jobs.cancel(first.id)
    assert queued(jobs).id != first.id


def test_idempotency_keys_belong_to_their_actor(jobs: JobStore) -> None:
    first = queued(jobs, "a", idempotency_key="k", actor="one")
    again, created = jobs.create(new_job("a", idempotency_key="k", actor="one"), queue_limit=10)
    assert (again.id, created) == (first.id, False)
    assert queued(jobs, "b", idempotency_key="k", actor="two").id != first.id
    with pytest.raises(IdempotencyKeyReusedError):
        jobs.create(new_job("c", idempotency_key="k", actor="one"), queue_limit=10)


def test_the_queue_limit_holds_under_a_rush(jobs: JobStore) -> None:
    def submit(number: int) -> bool:
        try:
            return jobs.create(new_job("abcdef"[number]), queue_limit=3)[1]
        except BusyError:
            return False

    with ThreadPoolExecutor(6) as pool:
        assert sum(pool.map(submit, range(6))) == 3
    with pytest.raises(BusyError) as caught:
        jobs.admit(queue_limit=3, retry_after_s=7)
    assert caught.value.retry_after_s == 7


def test_a_waiting_job_is_lifted_once_and_never_lowered(jobs: JobStore) -> None:
    old, late = queued(jobs, "a"), queued(jobs, "b")
    assert jobs.lift(late.id)
    assert tuple(jobs.queued()) == (late.id, old.id)
    found = jobs.require(late.id)
    assert (found.priority, found.status) == (Priority.URGENT, Status.QUEUED)
    assert found.revision == late.revision + 1
    assert not jobs.lift(late.id)
    jobs.claim(old.id, "w")
    assert jobs.lift(old.id)
    assert jobs.release(old.id, "w")
    assert jobs.queued()[old.id] is Priority.URGENT
    jobs.cancel(late.id)
    assert not jobs.lift(late.id)
    assert not jobs.lift("nobody")


def test_a_finished_job_is_not_lifted(jobs: JobStore) -> None:
    job = queued(jobs)
    jobs.claim(job.id, "w")
    jobs.succeed(job.id, "w", FINDING)
    assert not jobs.lift(job.id)
    assert jobs.require(job.id).priority is Priority.ROUTINE


def test_an_input_that_cannot_be_placed_leaves_no_job(jobs: JobStore) -> None:
    def fail() -> None:
        raise OSError("disk")

    with pytest.raises(OSError, match="disk"):
        jobs.create(new_job(), queue_limit=3, place_input=fail)
    assert jobs.page().jobs == ()


def test_cancel_queued_running_and_finished(jobs: JobStore) -> None:
    assert jobs.cancel(queued(jobs).id).status is Status.CANCELLED
    running = queued(jobs)
    jobs.claim(running.id, "w")
    asked = jobs.cancel(running.id)
    assert (asked.status, asked.cancel_requested) == (Status.RUNNING, True)
    assert not jobs.beat(running.id, "w")
    assert not jobs.succeed(running.id, "w", FINDING)
    assert jobs.set_cancelled(running.id, "w")
    assert jobs.cancel(running.id).status is Status.CANCELLED

    done = queued(jobs, "d")
    jobs.claim(done.id, "w")
    jobs.succeed(done.id, "w", FINDING)
    with pytest.raises(ConflictError) as caught:
        jobs.cancel(done.id)
    assert caught.value.code == "already_finished"
    with pytest.raises(NotFoundError):
        jobs.cancel("nobody")


def test_a_poison_job_dies_three_times(jobs: JobStore) -> None:
    job = queued(jobs)
    seen = []
    for number in range(3):
        assert jobs.claim(job.id, f"w{number}") is not None
        seen.append(jobs.recover(job.id, f"w{number}", max_deaths=3))
    assert seen == [Status.QUEUED, Status.QUEUED, Status.FAILED]
    dead = jobs.require(job.id)
    assert dead.error is not None
    assert (dead.error.code, dead.deaths, dead.attempts) == ("worker_died", 3, 3)


def test_recovery_knows_the_silent_from_the_living(jobs: JobStore) -> None:
    job = queued(jobs)
    assert tuple(jobs.queued()) == (job.id,)
    assert tuple(jobs.queued(older_than_s=60)) == ()
    jobs.claim(job.id, "w")
    assert jobs.running(silent_s=60) == ()
    assert [found.id for found in jobs.running()] == [job.id]
    jobs.cancel(job.id)
    assert jobs.recover(job.id, "w", max_deaths=3) is Status.CANCELLED


def test_urgent_jobs_wait_in_front(jobs: JobStore) -> None:
    urgent = {"b", "d"}
    made = {
        letter: queued(
            jobs, letter, priority=Priority.URGENT if letter in urgent else Priority.ROUTINE
        ).id
        for letter in "abcd"
    }
    assert tuple(jobs.queued()) == tuple(made[letter] for letter in "bdac")
    assert set(jobs.queued().values()) == set(Priority)


def test_a_released_job_counts_no_death(jobs: JobStore) -> None:
    job = queued(jobs)
    jobs.claim(job.id, "w")
    assert jobs.release(job.id, "w")
    again = jobs.require(job.id)
    assert (again.status, again.deaths, again.worker_id) == (Status.QUEUED, 0, None)


def test_pages_are_whole_and_in_order(jobs: JobStore) -> None:
    made = [queued(jobs, letter).id for letter in "abcde"]
    jobs.cancel(made[0])
    seen: list[str] = []
    cursor = None
    while True:
        page = jobs.page(cursor=cursor, limit=2)
        seen += [job.id for job in page.jobs]
        if (cursor := page.cursor) is None:
            break
    assert seen == made[::-1]
    cancelled = jobs.page(JobFilter(status=Status.CANCELLED, modality="ct")).jobs
    assert [job.id for job in cancelled] == made[:1]
    assert jobs.page(JobFilter(modality="mr")).jobs == ()
    assert jobs.counts()[Status.QUEUED] == 4


@pytest.mark.parametrize("cursor", ["", "x", "Zm9v", "MjAyNi0wMS0wMXx4", "ÿ"])
def test_a_foreign_cursor_is_bad_input(jobs: JobStore, cursor: str) -> None:
    with pytest.raises(InputError) as caught:
        jobs.page(cursor=cursor)
    assert caught.value.code == "invalid_cursor"


def test_an_input_is_dropped_with_its_last_job(jobs: JobStore) -> None:
    first, second = queued(jobs, "a"), queued(jobs, "b", input_key="a" * 64)
    dropped: list[str] = []
    assert jobs.delete(first.id, dropped.append)
    assert dropped == []
    assert jobs.delete(second.id, dropped.append)
    assert dropped == ["a" * 64]
    assert not jobs.delete(second.id, dropped.append)


def test_keys_are_shown_once_and_can_be_revoked(database: Database, tmp_path: Path) -> None:
    keys = KeyStore(database)
    assert not keys.any_active()
    key, text = keys.create(("read",))
    assert keys.verify(text) == key
    assert keys.verify(text + "x") is None
    assert keys.verify("aqcf_00000000_x") is None
    assert keys.verify("nonsense") is None
    assert keys.any_active()
    keys.revoke(key.id)
    assert keys.verify(text) is None
    assert not keys.any_active()
    secret = text.split("_", 2)[2].encode()
    assert all(secret not in file.read_bytes() for file in tmp_path.iterdir())
    with pytest.raises(NotFoundError):
        keys.revoke("nobody")
