"""When a study is complete."""

import pytest

from service.arrive.verdict import PATIENCE, Verdict, judge, settle_s

QUIET_S = 20.0
ARCHIVE = {"a": 40, "b": 3}


def ready(have: dict[str, int], archive: dict[str, int] | None, idle_s: float) -> bool:
    return judge(have, archive, idle_s=idle_s, quiet_s=QUIET_S).ready


@pytest.mark.parametrize("archive", [None, {"a": 40}])
def test_nothing_is_judged_in_the_middle_of_a_burst(archive: dict[str, int] | None) -> None:
    assert not ready({"a": 40}, archive, settle_s(QUIET_S) / 2)


def test_without_an_archive_quiet_decides() -> None:
    assert not ready({"a": 40}, None, QUIET_S - 1)
    assert ready({"a": 40}, None, QUIET_S)


def test_all_that_the_archive_has_is_enough_at_once() -> None:
    assert ready({"a": 40, "b": 3}, ARCHIVE, settle_s(QUIET_S))
    assert ready({"a": 41, "b": 3, "not there": 1}, ARCHIVE, settle_s(QUIET_S))


def test_a_series_that_is_not_sent_costs_the_quiet_time() -> None:
    assert not ready({"a": 40}, ARCHIVE, QUIET_S - 1)
    assert ready({"a": 40}, ARCHIVE, QUIET_S)
    done = judge({"a": 40}, ARCHIVE, idle_s=settle_s(QUIET_S), quiet_s=QUIET_S, done={"b"})
    assert done.ready


def test_a_series_that_lacks_images_is_waited_for_and_then_told() -> None:
    assert not ready({"a": 39, "b": 3}, ARCHIVE, QUIET_S * (PATIENCE - 1))
    verdict = judge({"a": 39, "b": 3}, ARCHIVE, idle_s=QUIET_S * PATIENCE, quiet_s=QUIET_S)
    assert verdict == Verdict(True, frozenset({"a"}))
