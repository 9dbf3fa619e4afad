"""Bearer tokens of a real issuer over HTTP: who gets in, and every way in which nobody does."""

import base64
import json
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from issuer import AUDIENCE, Issuer, SigningKey, forged

from model.errors import ConfigError
from service import wiring
from service.api.app import create_app
from service.api.oidc import ASK_AGAIN_S, FRESH_S, STALE_S, KeySet, Oidc, open_oidc, safe_url
from service.errors import IssuerUnavailableError, UnauthorizedError
from service.settings import Settings

BASE = "/v1/segmentations"
RSA, ELLIPTIC, STRANGER = SigningKey("k1"), SigningKey("k2", "EC"), SigningKey("k1")


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture(scope="module")
def server() -> Iterator[Issuer]:
    running = Issuer()
    yield running
    running.close()


@pytest.fixture
def issuer(server: Issuer) -> Issuer:
    server.keys, server.answers, server.status, server.asked = [RSA, ELLIPTIC], {}, 200, 0
    return server


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def oidc(issuer: Issuer, clock: Clock) -> Iterator[Oidc]:
    with httpx.Client(timeout=5, trust_env=False) as client:
        yield Oidc(issuer.url, AUDIENCE, "scope", KeySet(issuer.url, client, clock))


def refused(oidc: Oidc, token: str) -> str:
    with pytest.raises(UnauthorizedError) as caught:
        oidc.verify(token)
    return caught.value.message


@pytest.mark.parametrize("key", [RSA, ELLIPTIC], ids=["RS256", "ES256"])
def test_a_good_token_gets_in_without_a_name(oidc: Oidc, issuer: Issuer, key: SigningKey) -> None:
    found = oidc.verify(issuer.token(key))
    assert found.scopes == {"read"}
    assert found.actor.startswith("oidc:")
    assert len(found.actor) == len("oidc:") + 16
    assert "jane" not in found.actor
    assert oidc.verify(issuer.token(key)).actor == found.actor
    assert oidc.verify(issuer.token(key, sub="another")).actor != found.actor


@pytest.mark.parametrize(
    ("claim", "expected"),
    [
        ("read write", {"read", "write"}),
        (["admin", "offline_access"], {"admin"}),
        ("readwrite", set()),
        ("", set()),
        (None, set()),
        ({"read": 1}, set()),
        (7, set()),
    ],
)
def test_scopes_are_words_of_the_claim(
    oidc: Oidc, issuer: Issuer, claim: object, expected: set[str]
) -> None:
    assert oidc.verify(issuer.token(RSA, scope=claim)).scopes == expected


def test_several_audiences_and_a_little_clock_skew_are_fine(oidc: Oidc, issuer: Issuer) -> None:
    now = int(time.time())
    assert oidc.verify(issuer.token(RSA, aud=["account", AUDIENCE]))
    assert oidc.verify(issuer.token(RSA, exp=now - 10, nbf=now + 10))


@pytest.mark.parametrize(
    "changes",
    [
        {"exp": 1},
        {"exp": int(time.time()) - 60},
        {"exp": None},
        {"exp": "soon"},
        {"nbf": int(time.time()) + 600},
        {"aud": "other"},
        {"aud": [f"{AUDIENCE}2"]},
        {"aud": None},
        {"iss": "http://127.0.0.1/realms/clinic"},
        {"iss": None},
        {"sub": None},
    ],
    ids=str,
)
def test_wrong_claims_are_refused(oidc: Oidc, issuer: Issuer, changes: dict[str, Any]) -> None:
    refused(oidc, issuer.token(RSA, **changes))


def test_what_is_wrong_is_told_without_telling_who(oidc: Oidc, issuer: Issuer) -> None:
    assert "expired" in refused(oidc, issuer.token(RSA, exp=1))
    assert "audience" in refused(oidc, issuer.token(RSA, aud="Jane Doe"))
    for changes in ({"exp": 1}, {"aud": "Jane Doe"}, {"iss": "Jane Doe"}):
        assert "Jane" not in refused(oidc, issuer.token(RSA, **changes))


def test_another_signature_is_refused(oidc: Oidc, issuer: Issuer) -> None:
    refused(oidc, issuer.token(STRANGER))
    token = issuer.token(RSA)
    refused(oidc, token[:-8] + "AAAAAAAA")
    head, claims, signature = token.split(".")
    richer = json.loads(base64.urlsafe_b64decode(claims + "==")) | {"scope": "admin"}
    changed = base64.urlsafe_b64encode(json.dumps(richer).encode()).rstrip(b"=").decode()
    refused(oidc, f"{head}.{changed}.{signature}")


@pytest.mark.parametrize("name", ["none", "None", "NONE", "", None])
def test_a_token_without_a_signature_is_refused(
    oidc: Oidc, issuer: Issuer, name: str | None
) -> None:
    refused(oidc, forged(issuer.token(RSA), {"alg": name, "kid": "k1", "typ": "JWT"}))
    assert issuer.asked == 0


@pytest.mark.parametrize("key", [RSA, ELLIPTIC], ids=["RSA", "EC"])
def test_a_public_key_is_no_hmac_secret(oidc: Oidc, issuer: Issuer, key: SigningKey) -> None:
    published = json.dumps(key.published()).encode()
    for secret in (key.public_pem, key.public_pem.strip(), published):
        refused(oidc, forged(issuer.token(key), {"alg": "HS256", "kid": key.key_id}, secret))


def test_a_key_serves_its_own_algorithm_only(oidc: Oidc, issuer: Issuer) -> None:
    refused(oidc, issuer.token(RSA, {"kid": "k2"}))
    refused(oidc, issuer.token(ELLIPTIC, {"kid": "k1"}))
    strong = SigningKey("k3", extra={"alg": "RS512"})
    issuer.keys = [strong]
    refused(oidc, issuer.token(strong))


@pytest.mark.parametrize(
    "key",
    [
        SigningKey("weak", bits=1024),
        SigningKey("enc", extra={"use": "enc"}),
        SigningKey("oct", extra={"kty": "oct", "k": "c2VjcmV0"}),
    ],
    ids=lambda key: key.key_id,
)
@pytest.mark.filterwarnings("ignore:The RSA key is 1024 bits")
def test_keys_that_do_not_sign_well_are_not_used(
    oidc: Oidc, issuer: Issuer, key: SigningKey
) -> None:
    issuer.keys = [key]
    refused(oidc, issuer.token(key))


def test_a_key_from_the_token_itself_is_not_used(oidc: Oidc, issuer: Issuer) -> None:
    for head in (
        {"jwk": STRANGER.published()},
        {"jku": f"{issuer.url}/other", "kid": "k9"},
        {"x5u": "http://127.0.0.1/x"},
        {"crit": ["exp"]},
    ):
        refused(oidc, issuer.token(STRANGER, head))


def test_a_token_that_names_no_key_is_refused(oidc: Oidc, issuer: Issuer) -> None:
    issuer.keys = [RSA]
    refused(oidc, issuer.token(RSA, {"kid": None}))


def test_a_rotation_is_noticed(oidc: Oidc, issuer: Issuer, clock: Clock) -> None:
    oidc.verify(issuer.token(RSA))
    new = SigningKey("k9")
    issuer.keys = [new]
    clock.now += ASK_AGAIN_S
    assert oidc.verify(issuer.token(new)).scopes == {"read"}
    refused(oidc, issuer.token(RSA))


def test_unknown_keys_make_one_fetch_a_minute(oidc: Oidc, issuer: Issuer, clock: Clock) -> None:
    oidc.verify(issuer.token(RSA))
    for number in range(20):
        refused(oidc, issuer.token(STRANGER, {"kid": f"made-up-{number}"}))
    assert issuer.asked == 1
    clock.now += ASK_AGAIN_S
    for number in range(20):
        refused(oidc, issuer.token(STRANGER, {"kid": f"made-up-{number}"}))
    assert issuer.asked == 2


def test_keys_are_refreshed_and_a_withdrawn_one_is_refused(
    oidc: Oidc, issuer: Issuer, clock: Clock
) -> None:
    oidc.verify(issuer.token(RSA))
    issuer.keys = [ELLIPTIC]
    oidc.verify(issuer.token(RSA))
    clock.now += FRESH_S + 1
    refused(oidc, issuer.token(RSA))


def test_a_short_absence_of_the_issuer_is_not_noticed_a_long_one_closes_the_door(
    oidc: Oidc, issuer: Issuer, clock: Clock
) -> None:
    oidc.verify(issuer.token(RSA))
    issuer.status = 500
    clock.now += FRESH_S + 1
    assert oidc.verify(issuer.token(RSA))
    with pytest.raises(IssuerUnavailableError):
        oidc.verify(issuer.token(SigningKey("k9")))
    clock.now += STALE_S
    with pytest.raises(IssuerUnavailableError):
        oidc.verify(issuer.token(RSA))
    issuer.status = 200
    clock.now += ASK_AGAIN_S
    assert oidc.verify(issuer.token(RSA))


@pytest.mark.parametrize(
    "discovery",
    [
        b"",
        b"<html>",
        b"[]",
        b"{}",
        b'{"issuer": "https://evil.example", "jwks_uri": "https://evil.example"}',
        b'{"issuer": "ISSUER"}',
        b'{"issuer": "ISSUER", "jwks_uri": "http://evil.example/certs"}',
        b'{"issuer": "ISSUER", "jwks_uri": "file:///etc/passwd"}',
        b'{"issuer": "ISSUER", "jwks_uri": "ISSUER/nowhere"}',
        b'{"issuer": "ISSUER", "jwks_uri": "ISSUER/list"}',
        b" " * (1024**2 + 1),
    ],
    ids=range(11),
)
def test_a_broken_issuer_lets_nobody_in(oidc: Oidc, issuer: Issuer, discovery: bytes) -> None:
    document = discovery.replace(b"ISSUER", issuer.url.encode())
    issuer.answers["/realms/clinic/.well-known/openid-configuration"] = document
    issuer.answers["/realms/clinic/list"] = b'{"keys": 7}'
    with pytest.raises(IssuerUnavailableError):
        oidc.verify(issuer.token(RSA))


@given(st.text(max_size=200) | st.from_regex(r"[A-Za-z0-9_-]{0,80}(\.[A-Za-z0-9_-]{0,80}){2}"))
@settings(
    max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_nonsense_is_refused(oidc: Oidc, token: str) -> None:
    refused(oidc, token)


def test_deep_and_long_tokens_are_refused(oidc: Oidc) -> None:
    deep = base64.urlsafe_b64encode(b'{"alg":' + b"[" * 5000).decode()
    refused(oidc, f"{deep}.e30.AA")
    refused(oidc, "a" * 1024**2)


@pytest.mark.parametrize(
    "changes",
    [
        {"oidc_audience": None},
        {"oidc_issuer": "http://idp.clinic.example"},
        {"oidc_issuer": "ftp://127.0.0.1"},
        {"oidc_issuer": "https://"},
        {"oidc_ca": "/nowhere.pem"},
    ],
    ids=str,
)
def test_an_issuer_that_cannot_be_trusted_stops_the_start(
    settings: Settings, changes: dict[str, Any]
) -> None:
    good = {"oidc_issuer": "https://idp.clinic.example", "oidc_audience": AUDIENCE}
    assert open_oidc(settings.model_copy(update=good)) is not None
    with pytest.raises(ConfigError):
        open_oidc(settings.model_copy(update=good | changes))


def test_loopback_needs_no_https() -> None:
    assert safe_url("http://127.0.0.1:1/x")
    with pytest.raises(ValueError, match="https"):
        safe_url("http://127.0.0.1.evil.example")


@pytest.fixture
def guarded(settings: Settings, issuer: Issuer, start: Any) -> Iterator[Any]:
    """A service on a public address that knows an issuer and no API key."""
    changes = {
        "host": "0.0.0.0",  # noqa: S104
        "oidc_issuer": issuer.url,
        "oidc_audience": AUDIENCE,
    }
    container = wiring.build(settings.model_copy(update=changes))
    with start(container) as service:
        yield service
    container.database.close()


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def test_tokens_and_keys_open_the_same_door(guarded: Any, issuer: Issuer) -> None:
    _, key = guarded.container.keys.create(["read"])
    guarded.problem(guarded.http.get(BASE), 401, "unauthorized")
    for text in (issuer.token(RSA), key):
        assert guarded.http.get(BASE, headers=bearer(text)).status_code == 200
        guarded.problem(guarded.http.delete(f"{BASE}/x", headers=bearer(text)), 403, "forbidden")
    guarded.problem(guarded.http.get(BASE, headers=bearer("aqcf_0_x")), 401, "unauthorized")
    header = {"X-API-Key": issuer.token(RSA)}
    guarded.problem(guarded.http.get(BASE, headers=header), 401, "unauthorized")
    actors = {entry.actor for entry in guarded.container.audit.entries()}
    assert any(actor.startswith("oidc:") for actor in actors)
    assert not any("jane" in actor for actor in actors)


def test_an_issuer_that_is_away_is_503_and_keys_still_work(guarded: Any, issuer: Issuer) -> None:
    _, key = guarded.container.keys.create(["read"])
    issuer.status = 500
    answer = guarded.http.get(BASE, headers=bearer(issuer.token(RSA)))
    guarded.problem(answer, 503, "issuer_unavailable")
    assert answer.headers["retry-after"]
    assert guarded.http.get(BASE, headers=bearer(key)).status_code == 200


def test_with_an_issuer_loopback_is_not_open(
    settings: Settings, issuer: Issuer, start: Any
) -> None:
    changes = {"oidc_issuer": issuer.url, "oidc_audience": AUDIENCE}
    container = wiring.build(settings.model_copy(update=changes))
    with start(container) as service:
        service.problem(service.http.get(BASE), 401, "unauthorized")
    container.database.close()


def test_an_issuer_allows_a_public_address(settings: Settings, issuer: Issuer) -> None:
    changes = {"host": "0.0.0.0", "oidc_issuer": issuer.url, "oidc_audience": AUDIENCE}  # noqa: S104
    container = wiring.build(settings.model_copy(update=changes))
    assert create_app(container)
    container.database.close()
