"""``aqcf serve``: the API, the workers and the sweep in one process."""

import signal
from collections.abc import Callable
from types import FrameType

from .api.server import serve as answer
from .errors import ServiceError
from .observability import configure_logging
from .settings import Settings
from .wiring import embedded


def serve(settings: Settings, listening: Callable[[str], None]) -> None:
    """Serve until a signal comes; a job that runs then goes back into the queue.

    ``listening`` is called with the URL. Raises ``UnsafeAddressError``, ``StateLockedError``,
    ``ServiceError`` (``address_unavailable``).
    """
    configure_logging(settings.log_level)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _leave)
    with embedded(settings) as container:
        try:
            answer(container, listening)
        except OSError as error:
            raise ServiceError(
                f"cannot listen on {settings.host} port {settings.port}: {error.strerror}",
                code="address_unavailable",
            ) from error


def _leave(_number: int, _frame: FrameType | None) -> None:
    """Unwind, so that workers stop in order; uvicorn raises the signal again when it is done."""
    raise SystemExit(0)
