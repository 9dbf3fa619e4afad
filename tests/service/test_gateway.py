"""What a gateway shows to Prometheus beside the API."""

import socket

import httpx

from service.container import Container
from service.gateway import show_metrics


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
