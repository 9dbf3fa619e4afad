"""Warnings of the DICOM libraries quote header values, so they are never shown."""

import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

_lock = threading.Lock()
_active = 0
_saved: "warnings.catch_warnings[None] | None" = None


@contextmanager
def quiet() -> Iterator[None]:
    """Ignore all warnings inside. Counted, because ``catch_warnings`` alone is not thread-safe:
    two overlapping uses would leave the process with the wrong filters."""
    _enter()
    try:
        yield
    finally:
        _leave()


def _enter() -> None:
    global _active, _saved  # noqa: PLW0603
    with _lock:
        if _active == 0:
            _saved = warnings.catch_warnings()
            _saved.__enter__()
            warnings.simplefilter("ignore")
        _active += 1


def _leave() -> None:
    global _active, _saved  # noqa: PLW0603
    with _lock:
        _active -= 1
        if _active == 0 and _saved is not None:
            _saved.__exit__(None, None, None)
            _saved = None
