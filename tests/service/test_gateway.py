"""What a gateway does beside the API: shows metrics, and completes the studies that it got."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
from dicomweb_client.api import DICOMwebClient
from prometheus_client import CollectorRegistry
from pydicom import dcmread
from roles import Deployment
from servers import RedisServer, wait_until

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


def test_the_port_hangs_up_on_who_says_nothing() -> None:
    server = show_registry(CollectorRegistry(), 0, silence_s=0.1)
    try:
        with socket.create_connection(("127.0.0.1", server.server_port), timeout=10) as silent:
            assert silent.recv(1) == b""
    finally:
        server.shutdown()
        server.server_close()


SITE = "rules: [{name: liver-ct, when: {modality: ct}}]"


def test_a_gateway_alone_puts_what_it_got_to_the_rules(
    tmp_path: Path, redis_server: RedisServer, models_dir: Path, made: Any
) -> None:
    """No listener and no worker has its files: it is not left to them."""
    site = tmp_path / "site.yaml"
    site.write_text(SITE)
    environment = {
        "AQCF_STATE_DIR": str(tmp_path / "state"),
        "AQCF_MODELS_DIR": str(models_dir),
        "AQCF_REDIS_URL": redis_server.url,
        "AQCF_SITE_FILE": str(site),
        "AQCF_QUIET_S": "0.5",
    }
    deployment = Deployment(tmp_path, environment)
    try:
        gateway = deployment.gateway()
        files = made.series(tmp_path / "series", made.phantom((12, 40, 40)))
        client = DICOMwebClient(f"{deployment.url}/dicomweb")
        client.store_instances([dcmread(file) for file in files])
        wait_until(lambda: bool(jobs_of(deployment)), "no job of it", 20)
        [job] = jobs_of(deployment)
        assert (job["status"], job["modality"]) == ("queued", "ct")
        folder = tmp_path / "state" / "arrivals"
        wait_until(lambda: not list(folder.rglob("*.dcm")), "its files are left", 20)
        assert gateway.stop() == 0
    finally:
        deployment.close()


def jobs_of(deployment: Deployment) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = httpx.get(f"{deployment.url}/v1/segmentations").json()["items"]
    return found


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
