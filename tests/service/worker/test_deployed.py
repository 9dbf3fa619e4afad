"""A gateway and workers as processes of their own, over PostgreSQL and Redis: whatever is killed,
flushed or restarted, every accepted job ends once."""

from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest
from roles import Deployment, Role
from servers import PostgresServer, RedisServer, wait_until

from service.domain import WorkerInfo
from service.storage.database import open_database
from service.storage.jobs import JobStore
from service.storage.workers import WorkerStore

CANARY = "Q7ZEBRA"
UID_ROOT = "1.2.826.0.1.3680043"


@pytest.fixture(scope="module")
def deployment(
    tmp_path_factory: pytest.TempPathFactory,
    redis_server: RedisServer,
    postgres_server: PostgresServer,
    models_dir: Path,
) -> Iterator[Deployment]:
    """A gateway, and no worker yet."""
    folder = tmp_path_factory.mktemp("deployment")
    environment = {
        "AQCF_STATE_DIR": str(folder / "state"),
        "AQCF_MODELS_DIR": str(models_dir),
        "AQCF_REDIS_URL": redis_server.url,
        "AQCF_DATABASE_URL": postgres_server.new_database(),
    }
    made = Deployment(folder, environment)
    made.gateway()
    yield made
    made.close()


@pytest.fixture
def jobs(deployment: Deployment) -> Iterator[JobStore]:
    database = open_database(deployment.environment["AQCF_DATABASE_URL"])
    yield JobStore(database)
    database.close()


def small_zip(made: Any, folder: Path, seed: int) -> Path:
    return zipped(made, folder, made.phantom(seed=seed), seed)


def long_zip(made: Any, folder: Path, seed: int) -> Path:
    """Seconds of work in the profile ``paper``: time in which to kill."""
    return zipped(made, folder, made.phantom((48, 128, 128), seed=seed), seed)


def zipped(made: Any, folder: Path, array: Any, seed: int) -> Path:
    files = made.series(folder / f"series{seed}", array, canary=CANARY)
    return Path(made.zip(folder / f"{seed}.zip", files))


def submit(deployment: Deployment, archive: Path, **params: str) -> str:
    answer = httpx.post(
        f"{deployment.url}/v1/segmentations",
        params={"modality": "ct", **params},
        content=archive.read_bytes(),
        headers={"Content-Type": "application/zip"},
        timeout=60,
    )
    assert answer.status_code == 202, answer.text
    return str(answer.json()["id"])


def seg_of(deployment: Deployment, job_id: str) -> int:
    return httpx.get(f"{deployment.url}/v1/segmentations/{job_id}/seg").status_code


def readiness(deployment: Deployment) -> dict[str, bool]:
    checks: dict[str, bool] = httpx.get(f"{deployment.url}/readyz", timeout=30).json()["checks"]
    return checks


def finished(jobs: JobStore, *job_ids: str) -> Callable[[], bool]:
    return lambda: all(jobs.require(job_id).status.finished for job_id in job_ids)


def in_inference(jobs: JobStore, job_id: str) -> Callable[[], bool]:
    def check() -> bool:
        job = jobs.require(job_id)
        assert not job.status.finished, "the job is too short for this test"
        return job.stage == "inference"

    return check


def alive(deployment: Deployment) -> tuple[WorkerInfo, ...]:
    with closing(open_database(deployment.environment["AQCF_DATABASE_URL"])) as database:
        return WorkerStore(database).alive(5)


def worker_of(jobs: JobStore, job_id: str, roles: list[Role]) -> Role:
    """``worker_id`` is ``host-pid-random/claim``."""
    owner = jobs.require(job_id).worker_id or ""
    return next(role for role in roles if f"-{role.pid}-" in owner)


def test_jobs_wait_for_a_worker_and_survive_redis(
    tmp_path: Path,
    deployment: Deployment,
    jobs: JobStore,
    broker: RedisServer,
    made: Any,
) -> None:
    """Accepted without Redis, with it, and then flushed; done when a worker comes, urgent first."""
    archives = [small_zip(made, tmp_path, seed) for seed in range(4)]
    deployment.kill("worker")
    wait_until(lambda: not alive(deployment), "the dead count as alive")
    broker.kill()
    checks = readiness(deployment)
    assert (checks["database"], checks["queue"], checks["worker"]) == (True, False, False)
    ids = [submit(deployment, archives[0])]
    broker.start()
    ids += [submit(deployment, archives[1]), submit(deployment, archives[2])]
    urgent = submit(deployment, archives[3], priority="urgent")
    content = broker.content()
    assert urgent.encode() in content
    for planted in (CANARY, UID_ROOT, "19010203", "Clinic"):
        assert planted.encode() not in content
    broker.flush()
    [role] = deployment.workers(1)
    wait_until(finished(jobs, urgent, *ids), "not all jobs are done", 60)
    done = [jobs.require(job_id) for job_id in (urgent, *ids)]
    assert [(job.status, job.attempts, job.deaths) for job in done] == [("succeeded", 1, 0)] * 4
    assert all(seg_of(deployment, job.id) == 200 for job in done)
    assert readiness(deployment) == dict.fromkeys(readiness(deployment), True)
    gateway = deployment.roles[0]
    assert not any(CANARY in log.read_text() for log in (role.log, gateway.log))
    assert role.has_loaded("onnxruntime")
    assert not any(gateway.has_loaded(engine) for engine in ("onnxruntime", "openvino"))


def test_a_killed_workers_job_is_done_once_by_another(
    deployment: Deployment,
    jobs: JobStore,
    made: Any,
    tmp_path: Path,
) -> None:
    pair = deployment.workers(2)
    job_id = submit(deployment, long_zip(made, tmp_path, seed=5), profile="paper")
    wait_until(in_inference(jobs, job_id), "the job does not start", 30)
    victim = worker_of(jobs, job_id, pair)
    victim.kill()
    wait_until(finished(jobs, job_id), "nobody took the job", 60)
    job = jobs.require(job_id)
    assert (job.status, job.attempts, job.deaths) == ("succeeded", 2, 1)
    assert victim is not worker_of(jobs, job_id, pair)
    assert seg_of(deployment, job_id) == 200


def test_a_running_job_outlives_queue_and_ledger(
    deployment: Deployment,
    jobs: JobStore,
    broker: RedisServer,
    postgres_server: PostgresServer,
    made: Any,
    tmp_path: Path,
) -> None:
    """Both go and come back in the middle of a job; both this one and the next one end."""
    deployment.workers(1)
    long = submit(deployment, long_zip(made, tmp_path, seed=7), profile="paper")
    wait_until(in_inference(jobs, long), "the job does not start", 30)
    broker.kill()
    postgres_server.stop()
    assert httpx.get(f"{deployment.url}/v1/segmentations/{long}", timeout=30).status_code == 503
    postgres_server.start()
    broker.start()
    short = submit(deployment, small_zip(made, tmp_path, seed=8))
    wait_until(finished(jobs, long, short), "not all jobs are done", 90)
    assert [jobs.require(job_id).status for job_id in (long, short)] == ["succeeded"] * 2


def test_a_worker_that_is_told_to_stop_hands_its_job_on(
    deployment: Deployment,
    jobs: JobStore,
    made: Any,
    tmp_path: Path,
) -> None:
    pair = deployment.workers(2)
    job_id = submit(deployment, long_zip(made, tmp_path, seed=9), profile="paper")
    wait_until(in_inference(jobs, job_id), "the job does not start", 30)
    leaver = worker_of(jobs, job_id, pair)
    assert leaver.stop() == 0
    wait_until(finished(jobs, job_id), "nobody took the job", 60)
    job = jobs.require(job_id)
    assert (job.status, job.attempts, job.deaths) == ("succeeded", 2, 0)
    [left] = alive(deployment)
    assert (left.ready, left.device, left.models) == (True, "cpu", ("tiny",))
    assert f"-{leaver.pid}-" not in left.id
