"""uvicorn around the application, set up so that it says nothing about what it carries."""

import signal
import socket
from collections.abc import Callable
from types import FrameType

import uvicorn
from fastapi import FastAPI

from ..container import Container
from ..errors import ServiceError
from .app import create_app

GRACE_S = 5


class Server(uvicorn.Server):
    """Tells the open event streams to end before it waits for connections to close."""

    def __init__(self, app: FastAPI, host: str, port: int) -> None:
        config = uvicorn.Config(
            app,
            host=host,
            port=port,
            log_config=None,
            access_log=False,  # a path or a query is not ours to log
            server_header=False,
            proxy_headers=False,
            lifespan="off",
            ws="none",
            timeout_graceful_shutdown=GRACE_S,
        )
        super().__init__(config)
        self._app = app

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._app.state.stopping = True
        await super().shutdown(sockets)


def serve(container: Container, listening: Callable[[str], None]) -> None:
    """Answer on ``settings.host`` and ``port`` (0: a free one) until the process is told to stop.

    ``listening`` is called with the URL once the address is bound. Raises ``UnsafeAddressError``
    for a public address without API keys, ``ServiceError`` (``address_unavailable``).
    """
    host, port = container.settings.host, container.settings.port
    server = Server(create_app(container), host, port)
    with _bound(host, port) as bound:
        listening(url_of(bound))
        server.run(sockets=[bound])


def unwind_on_signals() -> None:
    """SIGTERM and SIGINT end the process in order."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _leave)


def _leave(_number: int, _frame: FrameType | None) -> None:
    """Unwind, so that workers stop in order; uvicorn raises the signal again when it is done."""
    raise SystemExit(0)


def _bound(host: str, port: int) -> socket.socket:
    try:
        return bind(host, port)
    except OSError as error:
        raise ServiceError(
            f"cannot listen on {host} port {port}: {error.strerror}", code="address_unavailable"
        ) from error


def bind(host: str, port: int) -> socket.socket:
    """A listening TCP socket."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host, port), family=family, backlog=128)


def url_of(bound: socket.socket) -> str:
    """Where a browser on this machine finds the socket."""
    host, port = bound.getsockname()[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"
