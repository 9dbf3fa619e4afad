"""``aqcf gateway``: the API; workers are other processes, on this host or others. What was sent to
this one by STOW-RS it puts to the rules itself: nobody else may have the files."""

from collections.abc import Callable
from http.server import ThreadingHTTPServer

from . import sweep
from .api.server import serve as answer
from .api.server import unwind_on_signals
from .container import Container
from .observability import configure_logging
from .scrape import LOOPBACK
from .scrape import show_metrics as show_registry
from .settings import Settings
from .wiring import deployed


def serve(settings: Settings, listening: Callable[[str], None]) -> None:
    """Answer until a signal comes.

    ``listening`` is called with the URL. Raises ``RoleSettingsError``, ``LedgerUnavailableError``,
    ``UnsafeAddressError``, ``ServiceError`` (``address_unavailable``).
    """
    configure_logging(settings.log_level)
    unwind_on_signals()
    with deployed(settings, "gateway") as container, sweep.sweeping_here(container):
        if settings.metrics_port is not None:
            show_metrics(container, settings.metrics_port, settings.metrics_host)
        answer(container, listening)


def show_metrics(container: Container, port: int, host: str = LOOPBACK) -> ThreadingHTTPServer:
    """The counts of this process, without a key: for an address that only Prometheus reaches. What
    is in the ledger the sweeps of other roles tell; a gateway has none. 0: a free port."""
    container.metrics.free_bytes.set_function(container.artifacts.free_bytes)
    return show_registry(container.metrics.registry, port, host)
