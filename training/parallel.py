"""One function over many items, in processes. What it returns comes as it is done."""

import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from typing import TypeVar

from model.errors import AqcfError

Item = TypeVar("Item")
Result = TypeVar("Result")


def each(
    function: Callable[[Item], Result], items: Sequence[Item], workers: int
) -> Iterator[tuple[int, Result]]:
    """``(index, function(item))`` in the order in which they are done; with one worker, here.

    What ``function`` raises is raised here. On Ctrl-C nothing new is begun, and what is under way
    is finished. Raises ``AqcfError`` (``worker_died``) when a process is killed.
    """
    if workers <= 1 or len(items) <= 1:
        for index, item in enumerate(items):
            yield index, function(item)
        return
    # Not forked: threads of numpy and torch do not survive that.
    pool = ProcessPoolExecutor(min(workers, len(items)), get_context("spawn"), _ignore_interrupt)
    try:
        futures = {pool.submit(function, item): index for index, item in enumerate(items)}
        for future in as_completed(futures):
            yield futures[future], future.result()
    except BrokenProcessPool as error:
        raise AqcfError(
            "a worker process was killed, perhaps for want of memory; ask for fewer workers",
            code="worker_died",
        ) from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _ignore_interrupt() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
