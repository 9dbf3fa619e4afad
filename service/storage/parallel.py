"""Many small transfers at the same time: their latency adds up otherwise."""

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeVar

THREADS: Final = 8

T = TypeVar("T")
R = TypeVar("R")


def in_parallel(action: Callable[[T], R], items: Iterable[T]) -> list[R]:
    """``action`` of every item, in order. The first error is raised; what has not begun by then
    is not begun."""
    todo = list(items)
    if len(todo) < 2:
        return [action(item) for item in todo]
    with ThreadPoolExecutor(min(THREADS, len(todo))) as pool:
        futures = [pool.submit(action, item) for item in todo]
        try:
            return [future.result() for future in futures]
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise
