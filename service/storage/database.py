"""One SQLAlchemy engine per process: SQLite that survives a kill, PostgreSQL that may restart."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, TypeVar

from alembic import command
from alembic.config import Config
from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url, text
from sqlalchemy.exc import InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.orm import Session

MIGRATIONS = Path(__file__).resolve().parent / "migrations"
WRITES = "aqcf_writes"
LOCK = 0x61716366  # "aqcf", the key of the advisory lock
CONNECT_S = 5
SILENCE_S = 30  # of the database's host, after which a connection counts as lost
RETRY_S = 0.2
CONNECTIONS = 40  # as many as the API has threads
SQLITE_PRAGMAS = (
    "PRAGMA journal_mode=WAL",
    "PRAGMA synchronous=FULL",  # an accepted job survives a power cut, not only a kill
    "PRAGMA foreign_keys=ON",
    "PRAGMA secure_delete=ON",  # a purged job's row leaves no bytes behind
)


UNREACHABLE: Final = (OperationalError, InterfaceError, PoolTimeoutError)

T = TypeVar("T")


def patiently(action: Callable[[], T], seconds: float) -> T:
    """What ``action`` returns; tried again for so many seconds while the database is away."""
    end = time.monotonic() + seconds
    while True:
        try:
            return action()
        except UNREACHABLE:
            if time.monotonic() >= end:
                raise
            time.sleep(RETRY_S)


class Database:
    """Sessions for reading and writing; see ``open_database``."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    @contextmanager
    def reading(self) -> Iterator[Session]:
        with Session(self.engine, expire_on_commit=False) as session:
            yield session

    @contextmanager
    def writing(self, *, alone: bool = False) -> Iterator[Session]:
        """One transaction, committed at the end.

        ``alone``: one such transaction at a time in all processes, so that what it reads stays true
        until it writes. On SQLite every writer is alone anyway.
        """
        engine = self.engine.execution_options(**{WRITES: True})
        with Session(engine, expire_on_commit=False) as session, session.begin():
            if alone:
                _lock(session.connection())
            yield session

    def upgrade(self) -> None:
        """Bring the tables to this version, from none or from any earlier one. Processes that
        start together wait for the first."""
        config = Config()
        config.set_main_option("script_location", str(MIGRATIONS))
        with self.engine.execution_options(**{WRITES: True}).begin() as connection:
            _lock(connection)
            config.attributes["connection"] = connection
            command.upgrade(config, "head")

    def close(self) -> None:
        self.engine.dispose()


def open_database(url: str) -> Database:
    """Connect; a SQLite file's folder is made when it is missing."""
    parsed = make_url(url)
    if parsed.get_backend_name() != "sqlite":
        return Database(_connect_server(parsed))
    if parsed.database:
        Path(parsed.database).parent.mkdir(parents=True, exist_ok=True)
    engine = create_engine(parsed, connect_args={"timeout": 30})
    event.listen(engine, "connect", _prepare_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    return Database(engine)


def _connect_server(url: URL) -> Engine:
    """``pool_pre_ping``: a restarted server costs no request its connection."""
    return create_engine(
        url,
        pool_pre_ping=True,
        pool_size=CONNECTIONS // 4,
        max_overflow=CONNECTIONS - CONNECTIONS // 4,
        pool_timeout=CONNECT_S,
        connect_args={
            "connect_timeout": CONNECT_S,
            "keepalives_idle": SILENCE_S,
            "tcp_user_timeout": SILENCE_S * 1000,
        },
    )


def _lock(connection: Connection) -> None:
    """Held until the transaction ends. SQLite's write lock is held already."""
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": LOCK})


def _prepare_sqlite(connection: Any, _record: object) -> None:
    connection.isolation_level = None  # the driver's own BEGIN comes too late; ours is below
    for pragma in SQLITE_PRAGMAS:
        connection.execute(pragma)


def _begin_sqlite(connection: Connection) -> None:
    writes = connection.get_execution_options().get(WRITES, False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")
