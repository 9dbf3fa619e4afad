"""``aqcf serve``: the API, the workers and the sweep in one process."""

import uvicorn

from .api.app import create_app
from .observability import configure_logging, get_logger
from .settings import Settings
from .wiring import embedded

log = get_logger("service.server")

STOP_AFTER_S = 10


def serve(settings: Settings) -> None:
    """Serve until a signal comes. Raises ``UnsafeAddressError``, ``StateLockedError``."""
    configure_logging(settings.log_level)
    with embedded(settings) as container:
        app = create_app(container)
        config = uvicorn.Config(
            app,
            host=settings.host,
            port=settings.port,
            log_config=None,
            access_log=False,
            timeout_graceful_shutdown=STOP_AFTER_S,
        )
        log.info("serving", host=settings.host, port=settings.port)
        uvicorn.Server(config).run()
