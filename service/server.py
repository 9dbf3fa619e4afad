"""``aqcf serve``: the API, the workers and the sweep in one process."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from .api.server import serve as answer
from .api.server import unwind_on_signals
from .container import Container
from .observability import configure_logging
from .settings import Settings
from .wiring import embedded


def serve(settings: Settings, listening: Callable[[str], None]) -> None:
    """Serve until a signal comes; a job that runs then goes back into the queue.

    ``listening`` is called with the URL. Raises ``UnsafeAddressError``, ``StateLockedError``,
    ``ServiceError`` (``address_unavailable``).
    """
    configure_logging(settings.log_level)
    unwind_on_signals()
    with embedded(settings) as container, _listener(container):
        answer(container, listening)


@contextmanager
def _listener(container: Container) -> Iterator[None]:
    """The DICOM listener, where the settings ask for it."""
    if not container.settings.listen:
        yield
        return
    from .listener import listening  # noqa: PLC0415  (it starts in half a second)

    with listening(container):
        yield
