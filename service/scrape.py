"""A port that shows the metrics of a process to whoever asks, and repeats nothing of a request."""

import threading
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest


def show_metrics(registry: CollectorRegistry, port: int) -> ThreadingHTTPServer:
    """Answer every GET on ``port`` (0: a free one), without a key: for a port that only Prometheus
    reaches. Ends with the process, or with ``shutdown`` and ``server_close``."""
    server = _Server(("", port), partial(_Scrape, registry))
    threading.Thread(target=server.serve_forever, name="metrics", daemon=True).start()
    return server


class _Server(ThreadingHTTPServer):
    def handle_error(self, _request: Any, _address: Any) -> None:
        """The base prints who asked."""


class _Scrape(BaseHTTPRequestHandler):
    def __init__(self, registry: CollectorRegistry, *connection: Any) -> None:
        self._registry = registry
        super().__init__(*connection)

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
