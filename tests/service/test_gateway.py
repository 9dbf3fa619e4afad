"""What a gateway shows to Prometheus beside the API."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import ThreadingHTTPServer

import httpx
import pytest
from prometheus_client import CollectorRegistry

from service.container import Container
from service.errors import ServiceError
from service.gateway import show_metrics
from service.scrape import show_metrics as show_registry
from service.settings import Settings


def test_metrics_have_a_port_of_their_own_without_a_key(container: Container) -> None:
    container.keys.create(("read",))
    container.metrics.rejected.labels("too_few_slices").inc()
    server = show_metrics(container, 0)
    try:
        text = httpx.get(f"http://127.0.0.1:{server.server_port}/metrics").text
    finally:
        server.shutdown()
        server.server_close()
    assert 'aqcf_rejected_total{code="too_few_slices"} 1.0' in text
    [free] = [line for line in text.splitlines() if line.startswith("aqcf_free_bytes ")]
    assert float(free.split()[1]) > 0


def test_the_port_repeats_nothing_of_a_request(container: Container) -> None:
    server = show_metrics(container, 0)
    try:
        url = f"http://127.0.0.1:{server.server_port}/Zwitscherbein"
        strange = httpx.request("ZWITSCHERBEIN", url)
        with socket.create_connection(("127.0.0.1", server.server_port)) as connection:
            connection.sendall(b"Zwitscherbein\r\n\r\n")
            answer = connection.recv(2**16)
    finally:
        server.shutdown()
        server.server_close()
    assert (strange.status_code, strange.content) == (501, b"")
    told = f"{strange.reason_phrase} {strange.headers} {answer.decode()}"
    assert "zwitscherbein" not in told.lower()


def test_metrics_are_shown_on_loopback_unless_told_otherwise() -> None:
    assert Settings().metrics_host == "127.0.0.1"
    registry = CollectorRegistry()
    with shown(show_registry(registry, 0)) as server:
        assert server.server_address[0] == "127.0.0.1"
        with pytest.raises(ServiceError, match="AQCF_METRICS_HOST") as caught:
            show_registry(registry, server.server_port)
        assert caught.value.code == "address_unavailable"
    with shown(show_registry(registry, 0, "127.0.0.2")) as server:
        assert server.server_address[0] == "127.0.0.2"


@contextmanager
def shown(server: ThreadingHTTPServer) -> Iterator[ThreadingHTTPServer]:
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
