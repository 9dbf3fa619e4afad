"""The ledger of arrivals, on SQLite and on PostgreSQL, with several processes' worth of threads."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from model.errors import InputError
from service.domain import Arrival, ArrivalState, Origin
from service.storage.arrivals import ArrivalFilter, ArrivalStore, SeriesKey
from service.storage.database import Database, open_database

A, B = SeriesKey("1.2.3", "1.2.3.1"), SeriesKey("1.2.3", "1.2.3.2")
OTHER = SeriesKey("1.2.4", "1.2.4.1")
FOREVER_S = 1e6


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path / 'ledger.sqlite3'}"
    else:
        url = request.getfixturevalue("postgres_url")
    opened = open_database(url)
    opened.upgrade()
    yield opened
    opened.close()


@pytest.fixture
def store(database: Database) -> ArrivalStore:
    return ArrivalStore(database)


def begin(store: ArrivalStore, key: SeriesKey = A, instances: int = 0) -> Arrival:
    arrival = store.open(key, Origin.DIMSE, "MODALITY")
    if instances:
        assert store.add(arrival.id, instances)
    found = store.get(arrival.id)
    assert found is not None
    return found


def closed(store: ArrivalStore, key: SeriesKey = A) -> Arrival:
    begin(store, key, 1)
    (arrival,) = store.close(store.of_study(key.study_uid, abandoned_s=FOREVER_S))
    return arrival


def test_a_series_has_one_open_arrival_however_many_receive_it(store: ArrivalStore) -> None:
    with ThreadPoolExecutor(8) as pool:
        opened = list(pool.map(lambda _: store.open(A, Origin.DIMSE, "MODALITY"), range(16)))
        assert len({one.id for one in opened}) == 1
        assert all(pool.map(lambda _: store.add(opened[0].id, 2), range(16)))
    found = store.get(opened[0].id)
    assert found is not None
    assert (found.instances, found.state) == (32, ArrivalState.RECEIVING)
    assert store.is_open(found.id)


def test_a_study_is_due_when_none_of_its_series_gets_more(store: ArrivalStore) -> None:
    first = begin(store, A, 3)
    begin(store, OTHER, 1)
    begin(store, B, 1)
    assert store.due(idle_s=0, abandoned_s=FOREVER_S) == ("1.2.4", "1.2.3")
    store.add(first.id)
    assert store.due(idle_s=0, abandoned_s=FOREVER_S) == ("1.2.4", "1.2.3")
    assert store.due(idle_s=60, abandoned_s=FOREVER_S) == ()


def test_only_one_of_many_closes_a_study(store: ArrivalStore) -> None:
    for number in range(12):
        store.add(begin(store, SeriesKey("1.2.3", f"1.2.3.{number}"), 3).id)
    seen = store.of_study("1.2.3", abandoned_s=FOREVER_S)
    orders = [seen, tuple(reversed(seen))] * 4
    with ThreadPoolExecutor(8) as pool:
        taken = list(pool.map(store.close, orders))
    assert sorted(map(len, taken)) == [0] * 7 + [12]
    assert not store.is_open(seen[0].id)
    assert not store.add(seen[0].id, 1)


def test_what_changed_since_it_was_seen_is_not_closed(store: ArrivalStore) -> None:
    arrival = begin(store, A, 3)
    seen = store.of_study("1.2.3", abandoned_s=FOREVER_S)
    assert store.add(arrival.id, 1)
    assert store.close(seen) == ()
    assert store.is_open(arrival.id)


def test_late_instances_open_another_arrival(store: ArrivalStore) -> None:
    first = closed(store)
    late = begin(store, A, 1)
    assert late.id != first.id
    assert store.finish(first.id, ArrivalState.SUBMITTED, instances=7, rule="liver", job_id="j")
    assert not store.finish(first.id, ArrivalState.FAILED)
    assert not store.finish(late.id, ArrivalState.FAILED)  # still open
    (earlier,) = store.finished("1.2.3")
    assert (earlier.state, earlier.instances) == (ArrivalState.SUBMITTED, 7)
    assert (earlier.rule, earlier.job_id, earlier.code) == ("liver", "j", None)


def test_an_abandoned_evaluation_is_taken_over_and_a_living_one_is_not(
    store: ArrivalStore,
) -> None:
    arrival = closed(store)
    assert store.due(idle_s=0, abandoned_s=60) == ()
    assert store.of_study("1.2.3", abandoned_s=60) == ()
    assert store.due(idle_s=0, abandoned_s=0) == ("1.2.3",)
    seen = store.of_study("1.2.3", abandoned_s=0)
    store.hold([arrival.id])
    assert store.close(seen) == ()
    assert len(store.close(store.of_study("1.2.3", abandoned_s=0))) == 1


def test_expected_counts_are_kept_by_series(store: ArrivalStore) -> None:
    begin(store, A), begin(store, B), begin(store, OTHER)
    store.expect("1.2.3", {"1.2.3.1": 40, "1.2.3.9": 7})
    found = {one.series_uid: one.expected for one in store.page().arrivals}
    assert found == {"1.2.3.1": 40, "1.2.3.2": None, "1.2.4.1": None}


def test_pages_filters_and_counts(store: ArrivalStore) -> None:
    for number in range(5):
        store.open(SeriesKey("1", f"1.{number}"), Origin.STOW, "key")
    store.finish(closed(store).id, ArrivalState.SET_ASIDE, code="no_rule")
    first = store.page(limit=4)
    assert len(first.arrivals) == 4
    second = store.page(limit=4, cursor=first.cursor)
    assert (len(second.arrivals), second.cursor) == (2, None)
    assert not {one.id for one in first.arrivals} & {one.id for one in second.arrivals}
    assert len(store.page(ArrivalFilter(origin=Origin.STOW)).arrivals) == 5
    assert len(store.page(ArrivalFilter(state=ArrivalState.SET_ASIDE)).arrivals) == 1
    assert store.page(ArrivalFilter(caller="nobody")).arrivals == ()
    assert store.counts() == {
        (Origin.STOW, ArrivalState.RECEIVING): 5,
        (Origin.DIMSE, ArrivalState.SET_ASIDE): 1,
    }
    with pytest.raises(InputError, match="cursor"):
        store.page(cursor="nonsense")


def test_old_ones_are_found_and_deleted(store: ArrivalStore) -> None:
    arrival = closed(store)
    store.finish(arrival.id, ArrivalState.FAILED, code="too_few_slices")
    assert store.old(older_than_s=60) == ()
    assert [one.id for one in store.old(older_than_s=0)] == [arrival.id]
    assert [one.id for one in store.failed()] == [arrival.id]
    store.delete(arrival.id)
    store.delete(arrival.id)
    assert store.get(arrival.id) is None
