"""Who gets in: keys and scopes, Host and Origin, and what each response forbids a browser."""

import socket
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from service import wiring
from service.api.app import create_app
from service.api.security import is_loopback
from service.container import Container
from service.errors import UnsafeAddressError
from service.settings import Settings

BASE = "/v1/segmentations"
OPEN = ("/", "/web/style.css", "/healthz", "/readyz", "/openapi.json")
CLOSED = (BASE, "/v1/models", "/metrics")


def bearer(text: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {text}"}


def test_loopback_without_keys_needs_none(shared: Any) -> None:
    for path in CLOSED:
        assert shared.http.get(path).status_code == 200


def test_the_first_key_closes_the_door(idle: Any) -> None:
    key, text = idle.container.keys.create(["read"])
    for path in CLOSED:
        response = idle.http.get(path)
        idle.problem(response, 401, "unauthorized")
        assert response.headers["www-authenticate"].startswith("Bearer")
        assert idle.http.get(path, headers=bearer(text)).status_code == 200
        assert idle.http.get(path, headers={"X-API-Key": text}).status_code == 200
    assert all(idle.http.get(path).status_code in {200, 503} for path in OPEN)
    assert key.id in {entry.actor for entry in idle.container.audit.entries()}

    idle.container.keys.revoke(key.id)
    idle.problem(idle.http.get(BASE, headers=bearer(text)), 401, "unauthorized")


@pytest.mark.parametrize("text", ["nonsense", "aqcf_00000000_x", "aqcf__", "ä€"])
def test_unknown_keys_are_refused_even_where_none_is_needed(shared: Any, text: str) -> None:
    response = shared.http.get(BASE, headers={b"X-API-Key": text.encode()})
    shared.problem(response, 401, "unauthorized")


def test_scopes(idle: Any) -> None:
    _, reads = idle.container.keys.create(["read"])
    _, writes = idle.container.keys.create(["write"])
    _, rules = idle.container.keys.create(["admin"])
    job = f"{BASE}/{'0' * 32}"
    idle.problem(idle.post(b"PK", headers=bearer(reads)), 403, "forbidden")
    idle.problem(idle.http.delete(job, headers=bearer(reads)), 403, "forbidden")
    idle.problem(idle.http.post(f"{job}/cancel", headers=bearer(reads)), 403, "forbidden")
    idle.problem(idle.http.get(BASE, headers=bearer(writes)), 403, "forbidden")
    idle.problem(idle.http.get(job, headers=bearer(writes)), 403, "forbidden")
    idle.problem(idle.http.get(job, headers=bearer(rules)), 404, "job_not_found")
    idle.problem(idle.http.delete(job, headers=bearer(rules)), 404, "job_not_found")


def test_upload_without_a_key_is_refused_before_it_is_read(idle: Any) -> None:
    idle.container.keys.create()
    head = (
        f"POST {BASE}?modality=ct HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999\r\n\r\n"
    )
    with socket.create_connection((idle.http.base_url.host, idle.http.base_url.port)) as raw:
        raw.sendall(head.encode())
        assert raw.recv(1024).startswith(b"HTTP/1.1 401")


@pytest.mark.parametrize("header", ["X-Forwarded-For", "Forwarded", "X-Real-IP"])
def test_through_a_proxy_nobody_is_local(shared: Any, header: str) -> None:
    shared.problem(shared.http.get(BASE, headers={header: "10.0.0.1"}), 401, "unauthorized")


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8080", "127.0.0.1.evil.example", ""]
)
def test_rebound_names_are_misdirected(shared: Any, host: str) -> None:
    for path in (BASE, "/", "/healthz"):
        shared.problem(shared.http.get(path, headers={"Host": host}), 421, "unknown_host")


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:8080", "127.0.0.1:9", "[::1]:80"])
def test_loopback_names_are_ours(shared: Any, host: str) -> None:
    assert shared.http.get(BASE, headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:1"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ],
)
def test_other_origins_change_nothing(shared: Any, headers: dict[str, str]) -> None:
    for method, path in (("POST", BASE), ("DELETE", f"{BASE}/x"), ("POST", f"{BASE}/x/cancel")):
        response = shared.http.request(method, path, headers=headers)
        shared.problem(response, 403, "cross_site_request")


def test_own_origin_may(shared: Any) -> None:
    own = {"Origin": str(shared.http.base_url).rstrip("/"), "Sec-Fetch-Site": "same-origin"}
    shared.problem(shared.http.delete(f"{BASE}/x", headers=own), 404, "job_not_found")


def test_headers_of_every_answer(shared: Any) -> None:
    for path in ("/", "/web/app.js", BASE, "/nowhere"):
        headers = shared.http.get(path).headers
        assert "default-src 'none'" in headers["content-security-policy"]
        assert "unsafe" not in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["x-frame-options"] == "DENY"
        assert headers["cross-origin-resource-policy"] == "same-origin"
        assert headers["cache-control"] == "no-store"
        assert "access-control-allow-origin" not in headers
        assert "server" not in headers
        assert len(headers["x-request-id"]) == 32


def test_the_page_loads_nothing_from_elsewhere(shared: Any) -> None:
    page = shared.http.get("/").text
    assert "http://" not in page
    assert "https://" not in page
    assert "<script>" not in page
    assert "style=" not in page


@pytest.fixture
def public(settings: Settings) -> Iterator[Container]:
    built = wiring.build(settings.model_copy(update={"host": "0.0.0.0"}))  # noqa: S104
    yield built
    built.database.close()


def test_a_public_address_needs_a_key_to_start(public: Container) -> None:
    with pytest.raises(UnsafeAddressError, match="no API key"):
        create_app(public)
    public.keys.create()
    create_app(public)


def test_a_public_address_asks_for_keys_under_any_name(public: Container, start: Any) -> None:
    _, text = public.keys.create()
    with start(public) as service:
        headers = {"Host": "segmentation.clinic.example"}
        service.problem(service.http.get(BASE, headers=headers), 401, "unauthorized")
        answer: httpx.Response = service.http.get(BASE, headers=headers | bearer(text))
        assert answer.status_code == 200


@pytest.mark.parametrize(
    ("host", "expected"),
    [("localhost", True), ("127.0.0.9", True), ("::1", True), ("0.0.0.0", False), ("x.y", False)],  # noqa: S104
)
def test_is_loopback(host: str, expected: bool) -> None:
    assert is_loopback(host) is expected
