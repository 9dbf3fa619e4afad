"""``aqcf gateway``: the API alone; workers are other processes, on this host or others."""

from collections.abc import Callable

from .api.server import serve as answer
from .api.server import unwind_on_signals
from .observability import configure_logging
from .settings import Settings
from .wiring import deployed


def serve(settings: Settings, listening: Callable[[str], None]) -> None:
    """Answer until a signal comes.

    ``listening`` is called with the URL. Raises ``RoleSettingsError``, ``LedgerUnavailableError``,
    ``UnsafeAddressError``, ``ServiceError`` (``address_unavailable``).
    """
    configure_logging(settings.log_level)
    unwind_on_signals()
    with deployed(settings, "gateway") as container:
        answer(container, listening)
