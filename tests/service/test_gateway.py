"""What a gateway shows to Prometheus beside the API."""

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
