"""A port that shows the metrics of a process to whoever asks, and repeats nothing of a request."""

import socket
import threading
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

from .errors import ServiceError

LOOPBACK: Final = "127.0.0.1"
SILENCE_S: Final = 30.0  # a caller that has gone without a word holds its thread no longer


def show_metrics(
    registry: CollectorRegistry, port: int, host: str = LOOPBACK, silence_s: float = SILENCE_S
) -> ThreadingHTTPServer:
    """Answer every GET on ``port`` (0: a free one) of ``host``, without a key: for an address that
    only Prometheus reaches. Ends with the process, or with ``shutdown`` and ``server_close``. Who
    says nothing for ``silence_s`` is hung up on.

    Raises ``ServiceError`` (``address_unavailable``).
    """
    try:
        server = _Server((host, port), partial(_Scrape, registry, silence_s))
    except OSError as error:
        raise ServiceError(
            f"cannot show metrics on {host} port {port}: {error.strerror}; check "
            "AQCF_METRICS_HOST and AQCF_METRICS_PORT",
            code="address_unavailable",
        ) from error
    threading.Thread(target=server.serve_forever, name="metrics", daemon=True).start()
    return server


class _Server(ThreadingHTTPServer):
    def __init__(self, address: tuple[str, int], handler: Any) -> None:
        self.address_family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        super().__init__(address, handler)

    def handle_error(self, _request: Any, _address: Any) -> None:
        """The base prints who asked."""


class _Scrape(BaseHTTPRequestHandler):
    def __init__(self, registry: CollectorRegistry, silence_s: float, *connection: Any) -> None:
        self._registry, self._silence_s = registry, silence_s
        super().__init__(*connection)

    def setup(self) -> None:
        super().setup()
        self.connection.settimeout(self._silence_s)

    def do_GET(self) -> None:
        body = generate_latest(self._registry)
        self.send_response(200)
        self.send_header("Content-Type", CONTENT_TYPE_LATEST)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def send_error(self, code: int, _message: str | None = None, _explain: Any = None) -> None:
        """The base repeats the request's line and method."""
        self.close_connection = True
        self.send_response(code)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Requests are not told of."""
