"""The back-up and the restore of docs/operations.md, by its very commands, without containers."""

import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import psycopg
import pydicom
import pytest
from alembic import command
from alembic.config import Config
from servers import PostgresServer, wait_until
from sqlalchemy import inspect

from service import execute, intake, sweep, wiring
from service.container import Container
from service.domain import ArtifactName, Job, Status, SubmitOptions
from service.settings import Settings
from service.storage.database import MIGRATIONS, open_database
from service.uploads import Upload

PAGE = Path(__file__).resolve().parents[2] / "docs" / "operations.md"
DATABASE = re.compile(r"docker compose exec -T postgres (pg_\w+ .*) ([<>]) \S*/ledger\.dump")
ARTIFACTS = re.compile(r"--entrypoint (tar) gateway (.*) ([<>]) \S*/artifacts\.tar")


@pytest.fixture
def server(postgres_server: PostgresServer) -> Iterator[PostgresServer]:
    """With an empty database of the name that compose gives it."""
    _recreate(postgres_server)
    yield postgres_server
    _recreate(postgres_server)


def _recreate(server: PostgresServer) -> None:
    with closing(_connect(server)) as connection:
        connection.execute("DROP DATABASE IF EXISTS aqcf WITH (FORCE)")
        connection.execute("CREATE DATABASE aqcf")


def _connect(server: PostgresServer) -> "psycopg.Connection[tuple[object, ...]]":
    return psycopg.connect(
        host="127.0.0.1", port=server.port, user="aqcf", dbname="postgres", autocommit=True
    )


def url_of(server: PostgresServer) -> str:
    return f"postgresql+psycopg://aqcf@127.0.0.1:{server.port}/aqcf"


class Keeper:
    """Runs the page's commands; a dump and an archive lie in ``folder``."""

    def __init__(self, server: PostgresServer, folder: Path, artifacts: Path) -> None:
        self._server, self._folder, self._artifacts = server, folder, artifacts
        page = PAGE.read_text(encoding="utf-8")
        self._database = {way: words for words, way in DATABASE.findall(page)}
        self._files = {way: (name, words) for name, words, way in ARTIFACTS.findall(page)}

    def back_up(self) -> None:
        self._on_database(">")
        self._on_files(">")

    def restore(self) -> None:
        self._on_database("<")
        self._artifacts.mkdir(exist_ok=True)
        self._on_files("<")

    def _on_database(self, way: str) -> None:
        program, *words = self._database[way].split()
        self._run([program, "-h", "127.0.0.1", "-p", str(self._server.port), *words], way, "dump")

    def _on_files(self, way: str) -> None:
        program, words = self._files[way]
        self._run([program, *words.replace("/artifacts", str(self._artifacts)).split()], way, "tar")

    def _run(self, words: list[str], way: str, name: str) -> None:
        with (self._folder / name).open("wb" if way == ">" else "rb") as file:
            stream = {"stdout": file} if way == ">" else {"stdin": file}
            subprocess.run(words, check=True, timeout=60, **stream)


@pytest.fixture
def node(tmp_path: Path, settings: Settings, server: PostgresServer) -> Settings:
    changes = {
        "database_url": url_of(server),
        "artifacts_url": (tmp_path / "artifacts").as_uri(),
        "heartbeat_timeout_s": 0.3,
    }
    return settings.model_copy(update=changes)


@contextmanager
def running(node: Settings) -> Iterator[Container]:
    """A node's processes, as they are after a start."""
    built = wiring.build(node)
    yield built
    built.database.close()


def submit(container: Container, made: Any, folder: Path, seed: int) -> Job:
    files = made.series(folder / f"series{seed}", made.phantom(seed=seed))
    return intake.submit(container, Upload(tuple(files)), SubmitOptions("ct"))


def seg(container: Container, job_id: str) -> pydicom.Dataset:
    return pydicom.dcmread(container.artifacts.path(job_id, ArtifactName.SEG))


def test_a_node_comes_back_as_it_was_at_the_time_of_the_back_up(
    tmp_path: Path, node: Settings, server: PostgresServer, made: Any
) -> None:
    """One job was done, one ran, one waited, one came later. A process that was killed since goes
    on with none of them."""
    keeper = Keeper(server, tmp_path, tmp_path / "artifacts")
    with running(node) as here:
        finished, taken, waiting = (submit(here, made, tmp_path, seed) for seed in (1, 2, 3))
        execute.run(here, finished.id)
        before = seg(here, finished.id)
        here.jobs.claim(taken.id, "a worker that is gone by then")
        _, key = here.keys.create()

        keeper.back_up()
        for job in (waiting, later := submit(here, made, tmp_path, 4)):
            execute.run(here, job.id)
        first = seg(here, waiting.id)
    shutil.rmtree(tmp_path / "artifacts")

    keeper.restore()

    with running(node) as here:
        assert seg(here, finished.id) == before
        assert here.jobs.get(later.id) is None
        assert here.keys.verify(key) is not None
        recovered = partial(_is_queued, here, taken.id)
        wait_until(recovered, "the job that ran is not taken up again")
        for job in (waiting, taken):
            execute.run(here, job.id)
            assert here.jobs.require(job.id).status is Status.SUCCEEDED
        again = seg(here, waiting.id)
        assert again.SOPInstanceUID == first.SOPInstanceUID
        assert again.SeriesInstanceUID == first.SeriesInstanceUID
        assert again.PixelData == first.PixelData


def _is_queued(container: Container, job_id: str) -> bool:
    sweep.run_once(container)
    return container.jobs.require(job_id).status is Status.QUEUED


def test_a_dump_of_older_tables_goes_over_newer_ones_and_is_upgraded(
    tmp_path: Path, server: PostgresServer
) -> None:
    keeper = Keeper(server, tmp_path, tmp_path / "artifacts")
    (tmp_path / "artifacts").mkdir()
    url = url_of(server)
    with closing(open_database(url)) as database:
        config = Config()
        config.set_main_option("script_location", str(MIGRATIONS))
        with database.engine.begin() as connection:
            config.attributes["connection"] = connection
            command.upgrade(config, "0001")
        old = set(inspect(database.engine).get_table_names())
    keeper.back_up()
    with closing(open_database(url)) as database:
        database.upgrade()
        new = set(inspect(database.engine).get_table_names())
    assert old < new

    keeper.restore()

    with closing(open_database(url)) as database:
        assert set(inspect(database.engine).get_table_names()) == old
        database.upgrade()
        assert set(inspect(database.engine).get_table_names()) == new
