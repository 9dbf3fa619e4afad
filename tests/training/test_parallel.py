"""One function over many items."""

import os

import pytest

from model.errors import AqcfError, InputError
from training.parallel import each


def square(number: int) -> int:
    if number == 3:
        raise InputError("three", code="odd_one")
    return number**2


def die(number: int) -> None:
    os._exit(number)


@pytest.mark.parametrize("workers", [1, 2])
def test_results_come_with_their_place(workers: int) -> None:
    assert sorted(each(square, [5, 7, 9], workers)) == [(0, 25), (1, 49), (2, 81)]


@pytest.mark.parametrize("workers", [1, 2])
def test_errors_come_as_they_were_raised(workers: int) -> None:
    with pytest.raises(InputError, match="three") as caught:
        list(each(square, [5, 3, 9], workers))
    assert caught.value.code == "odd_one"


def test_a_killed_process_is_told() -> None:
    with pytest.raises(AqcfError, match="fewer workers") as caught:
        list(each(die, [1, 1], 2))
    assert caught.value.code == "worker_died"
