"""``aqcf listen``: the listener alone; workers are other processes, on this host or others."""

import signal
import threading
from collections.abc import Callable

from .. import sweep
from ..observability import configure_logging
from ..scrape import show_metrics
from ..settings import Settings
from ..wiring import deployed
from .server import listening


def serve(settings: Settings, ready: Callable[[str], None]) -> None:
    """Listen until a signal comes; ``ready`` is called with the address.

    Raises ``RoleSettingsError``, ``LedgerUnavailableError``, ``UnsafeAddressError``,
    ``ServiceError`` (``address_unavailable``, ``unusable_certificate``).
    """
    configure_logging(settings.log_level)
    leave = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: leave.set())
    with (
        deployed(settings, "listener") as container,
        sweep.sweeping(container),
        listening(container) as (host, port),
    ):
        if settings.metrics_port is not None:
            show_metrics(container.metrics.registry, settings.metrics_port, settings.metrics_host)
        ready(f"{settings.ae_title} at {host}:{port}")
        leave.wait()
