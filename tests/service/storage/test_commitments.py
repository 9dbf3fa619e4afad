"""Storage commitment in the ledger: every transaction asked for what was sent last counts."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.config import Config
from servers import wait_until
from sqlalchemy import inspect, select, text

from service.domain import DeliveryState
from service.storage import commitments
from service.storage.database import MIGRATIONS, Database, open_database
from service.storage.deliveries import DeliveryPolicy, DeliveryStore
from service.storage.tables import CommitmentRow, DeliveryRow

ME, OTHER = "worker-1", "worker-2"
FIRST, SECOND = "2.25.1", "2.25.2"


@pytest.fixture(params=["sqlite", "postgresql"])
def empty(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    """Every test of this file runs on both."""
    url = f"sqlite:///{tmp_path}/ledger.sqlite3"
    if request.param == "postgresql":
        url = str(request.getfixturevalue("postgres_url"))
    with closing(open_database(url)) as opened:
        yield opened


@pytest.fixture
def database(empty: Database) -> Database:
    empty.upgrade()
    return empty


class Sender:
    """Holds the delivery of ``job`` to ``pacs``."""

    def __init__(self, database: Database, job: str = "job") -> None:
        self.deliveries = DeliveryStore(database, DeliveryPolicy(first_s=600.0, give_up_s=-1.0))
        self._database = database
        assert self.deliveries.enqueue(job, ["pacs"])
        claimed = self.deliveries.claim("pacs", ME)
        assert claimed is not None
        self.claimed, self.id = claimed, claimed.id

    @property
    def committed(self) -> bool | None:
        return self.deliveries.require(self.id).committed

    def ask(self, uid: str) -> None:
        assert self.deliveries.await_commitment(self.id, ME, uid)

    def hear(self, uid: str, *, committed: bool) -> bool:
        return self.deliveries.report_commitment(uid, committed=committed)

    def open(self) -> set[str]:
        with self._database.reading() as session:
            return set(session.scalars(select(CommitmentRow.transaction_uid)))


@pytest.fixture
def sender(database: Database) -> Sender:
    return Sender(database)


def test_a_report_finds_its_delivery(database: Database, sender: Sender) -> None:
    other = Sender(database, "another job")
    assert not sender.hear(FIRST, committed=True), "nobody asked"
    sender.ask(FIRST)
    other.ask(SECOND)
    assert sender.hear(FIRST, committed=True)
    assert (sender.committed, other.committed) == (True, None)


def test_who_lost_the_claim_asks_nothing(sender: Sender) -> None:
    assert not sender.deliveries.await_commitment(sender.id, OTHER, FIRST)
    assert not sender.deliveries.forget_commitments(sender.id, OTHER)
    assert sender.open() == set()


def test_the_report_of_any_transaction_counts_and_makes_it_due(sender: Sender) -> None:
    sender.ask(FIRST)
    sender.ask(SECOND)
    assert sender.deliveries.postpone(sender.claimed, ME, "not_confirmed")
    assert sender.deliveries.due_destinations() == ()
    assert sender.hear(FIRST, committed=True)
    assert sender.committed is True
    assert sender.deliveries.due_destinations() == ("pacs",)


def test_no_failure_undoes_a_promise(sender: Sender) -> None:
    sender.ask(FIRST)
    sender.ask(SECOND)
    assert sender.hear(SECOND, committed=True)
    assert sender.hear(FIRST, committed=False), "it was asked for"
    assert sender.committed is True


def test_who_asks_again_keeps_a_promise_and_drops_a_failure(sender: Sender) -> None:
    sender.ask(FIRST)
    assert sender.hear(FIRST, committed=False)
    assert sender.committed is False
    sender.ask(SECOND)
    assert sender.committed is None
    assert sender.hear(FIRST, committed=True)
    sender.ask("2.25.3")
    assert sender.committed is True


def test_no_promise_counts_for_what_is_sent_after_it_was_asked_for(sender: Sender) -> None:
    sender.ask(FIRST)
    sender.ask(SECOND)
    assert sender.hear(FIRST, committed=True)
    assert sender.deliveries.forget_commitments(sender.id, ME)
    assert sender.committed is None
    for uid in (FIRST, SECOND):
        assert not sender.hear(uid, committed=True)
    assert sender.committed is None


def test_a_report_that_waits_for_a_sender_who_sends_again_counts_no_more(
    postgres_url: str,
) -> None:
    """The report is looked up before the sender's transaction ends, and applied after it. (SQLite
    has one writer at a time.)"""
    with closing(open_database(postgres_url)) as database, ThreadPoolExecutor(1) as pool:
        database.upgrade()
        sender = Sender(database)
        sender.ask(FIRST)
        with database.writing() as session:
            session.get_one(DeliveryRow, sender.id).notes = ["sent again"]
            session.flush()
            heard = pool.submit(sender.hear, FIRST, committed=True)
            wait_until(lambda: _waits(database), "the report does not wait")
            commitments.forget(session, [sender.id])
        assert heard.result(30) is False
        assert sender.committed is None


def _waits(database: Database) -> bool:
    with database.reading() as session:
        return bool(session.scalar(text("SELECT count(*) FROM pg_locks WHERE NOT granted")))


ENDS: dict[str, Callable[[Sender], object]] = {
    "delivered": lambda sender: sender.deliveries.delivered(sender.id, ME),
    "failed": lambda sender: sender.deliveries.failed(sender.id, ME, "pacs_refused"),
    "cancelled": lambda sender: sender.deliveries.cancelled(sender.id, ME),
}


@pytest.mark.parametrize("end", ENDS)
def test_an_end_forgets(database: Database, sender: Sender, end: str) -> None:
    other = Sender(database, "another job")
    other.ask(SECOND)
    sender.ask(FIRST)
    assert ENDS[end](sender)
    assert sender.open() == {SECOND}
    assert not sender.hear(FIRST, committed=True)


def test_a_delivery_that_is_given_up_forgets(sender: Sender) -> None:
    sender.ask(FIRST)
    assert sender.deliveries.let_go(sender.id, ME)
    assert sender.open() == {FIRST}
    assert [late.id for late in sender.deliveries.expire()] == [sender.id]
    assert sender.open() == set()


def _migrate(database: Database, way: Callable[[Config, str], Any], revision: str) -> None:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    with database.engine.begin() as connection:
        config.attributes["connection"] = connection
        way(config, revision)


def _shape(database: Database) -> tuple[set[str], ...]:
    """Tables, and the names of what belongs to a delivery."""
    seen, table = inspect(database.engine), "deliveries"
    parts = (
        seen.get_columns(table),
        seen.get_indexes(table),
        seen.get_unique_constraints(table),
    )
    return set(seen.get_table_names()), *({str(one["name"]) for one in part} for part in parts)


OLD = """
    INSERT INTO deliveries (id, job_id, destination, state, attempts, give_up_at, transaction_uid,
        sent, notes, created_at, updated_at)
    VALUES (:id, :id, 'pacs', :state, 1, :at, :uid, '[]', '[]', :at, :at)
"""


def test_an_open_transaction_is_carried_over_and_back(empty: Database) -> None:
    _migrate(empty, command.upgrade, "0003")
    old = [("a", "pending", FIRST), ("b", "failed", SECOND), ("c", "sending", None)]
    with empty.engine.begin() as connection:
        at = "2026-01-02 03:04:05.000000+00:00"
        rows = [{"id": name, "state": state, "uid": uid, "at": at} for name, state, uid in old]
        connection.execute(text(OLD), rows)
    before = _shape(empty)
    empty.upgrade()
    deliveries = DeliveryStore(empty)
    assert deliveries.report_commitment(FIRST, committed=True)
    assert not deliveries.report_commitment(SECOND, committed=True)
    assert deliveries.require("a").committed is True
    assert deliveries.require("b").state is DeliveryState.FAILED

    _migrate(empty, command.downgrade, "0003")

    assert _shape(empty) == before
    with empty.engine.connect() as connection:
        left = connection.execute(text("SELECT id, transaction_uid FROM deliveries ORDER BY id"))
        assert [tuple(row) for row in left] == [("a", FIRST), ("b", None), ("c", None)]
    empty.upgrade()
    assert DeliveryStore(empty).report_commitment(FIRST, committed=True)
