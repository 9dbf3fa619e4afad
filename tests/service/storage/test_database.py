"""PostgreSQL as the ledger: processes that start together, and a server that is restarted."""

import asyncio
import base64
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI
from servers import PostgresServer
from sqlalchemy import inspect
from sqlalchemy.exc import OperationalError

from model.errors import InputError
from service import intake, wiring
from service.api.app import create_app
from service.container import Container
from service.domain import SubmitOptions
from service.settings import Settings
from service.storage.database import open_database
from service.storage.jobs import JobStore
from service.uploads import Upload


@pytest.fixture
def on_postgres(settings: Settings, postgres_url: str) -> Iterator[Container]:
    built = wiring.build(settings.model_copy(update={"database_url": postgres_url}))
    yield built
    built.database.close()


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_one_of_many_makes_the_tables(
    request: pytest.FixtureRequest, tmp_path: Path, kind: str
) -> None:
    sqlite = kind == "sqlite"
    url = f"sqlite:///{tmp_path}/a.db" if sqlite else request.getfixturevalue("postgres_url")
    databases = [open_database(url) for _ in range(4)]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda database: database.upgrade(), databases))
    assert "workers" in inspect(databases[0].engine).get_table_names()
    for database in databases:
        database.close()


def test_a_running_job_outlives_a_restart_of_the_database(
    on_postgres: Container, postgres_server: PostgresServer, ct_zip: Path
) -> None:
    job = intake.submit(on_postgres, Upload((ct_zip,)), SubmitOptions("ct"))
    patient = JobStore(on_postgres.database, patience_s=30)
    patient.claim(job.id, "w")
    postgres_server.stop()
    with pytest.raises(OperationalError):
        on_postgres.jobs.beat(job.id, "w")
    again = threading.Timer(0.5, postgres_server.start)
    again.start()
    start = time.monotonic()
    assert patient.beat(job.id, "w")
    assert time.monotonic() - start > 0.4
    again.join()
    assert on_postgres.jobs.beat(job.id, "w")


def _get(container: Container, path: str) -> httpx.Response:
    """In a thread of its own: the browser of other tests keeps an event loop in this one."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, _ask(create_app(container), path)).result()


async def _ask(app: FastAPI, path: str) -> httpx.Response:
    transport = httpx.ASGITransport(app, client=("127.0.0.1", 1))
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
        return await client.get(path)


def test_without_its_database_the_service_asks_to_come_again(
    on_postgres: Container, postgres_server: PostgresServer
) -> None:
    postgres_server.stop()
    try:
        answer = _get(on_postgres, "/v1/segmentations")
        ready = _get(on_postgres, "/readyz")
    finally:
        postgres_server.start()
    assert (answer.status_code, answer.json()["code"]) == (503, "ledger_unavailable")
    assert int(answer.headers["retry-after"]) > 0
    assert ready.status_code == 503
    assert (ready.json()["checks"]["database"], ready.json()["checks"]["disk"]) == (False, True)
    assert _get(on_postgres, "/v1/segmentations").status_code == 200


@pytest.mark.parametrize(
    "place",
    [
        "2026-01-01T00:00:00+00:00|a\x00b",
        "2026-01-01T00:00:00|" + "0" * 36,
        "0001-01-01T00:00:00+23:59|" + "0" * 36,
    ],
)
def test_a_forged_cursor_never_reaches_the_database(on_postgres: Container, place: str) -> None:
    with pytest.raises(InputError) as caught:
        on_postgres.jobs.page(cursor=base64.urlsafe_b64encode(place.encode()).decode())
    assert caught.value.code == "invalid_cursor"
