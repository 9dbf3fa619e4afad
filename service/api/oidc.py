"""Bearer tokens of one OpenID Connect issuer, checked with its published keys.

OpenID Connect Discovery 1.0 finds the keys (RFC 7517), RFC 7519 says what a token has to hold. Only
RS256 and ES256 are taken, each with a key of its own kind, so that neither ``none`` nor a public
key used as an HMAC secret gets anybody in.
"""

import hashlib
import ssl
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

import httpx
import jwt
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from model.errors import ConfigError

from ..errors import IssuerUnavailableError, UnauthorizedError
from ..observability import get_logger
from ..settings import Settings, is_loopback
from ..storage.keys import SCOPES

DISCOVERY: Final = "/.well-known/openid-configuration"
ALGORITHMS: Final[Mapping[str, str]] = {"RSA": "RS256", "EC": "ES256"}
RSA_BITS: Final = 2048
REQUIRED: Final = ("iss", "aud", "exp", "sub")
LEEWAY_S: Final = 30
FRESH_S: Final = 600.0  # then the keys are fetched again
STALE_S: Final = 3600.0  # then they are not believed any more
ASK_AGAIN_S: Final = 60.0
DOWN_S: Final = 5.0
TIMEOUT: Final = httpx.Timeout(5.0, connect=3.0)
MAX_BYTES: Final = 1024**2
MAX_TOKEN: Final = 16 * 1024

Clock = Callable[[], float]
log = get_logger(__name__)


@dataclass(frozen=True)
class Identity:
    """``actor`` tells one person from another without naming them."""

    actor: str
    scopes: frozenset[str]


class KeySet:
    """The issuer's public keys by key id, fetched when they are needed.

    A key id that is not known makes one fetch, at most every ``ASK_AGAIN_S`` seconds: that is how a
    rotation is noticed, and how nobody makes this service hammer the issuer. Keys that cannot be
    refreshed serve until ``STALE_S``.
    """

    def __init__(self, issuer: str, client: httpx.Client, clock: Clock = time.monotonic) -> None:
        self._issuer, self._client, self._clock = issuer, client, clock
        self._lock = threading.Lock()
        self._keys: dict[str, jwt.PyJWK] = {}
        self._fetched_at: float | None = None
        self._tried_at: float | None = None
        self._failed = False

    def find(self, key_id: str) -> jwt.PyJWK | None:
        """Raises ``IssuerUnavailableError`` where only the issuer could tell."""
        with self._lock:
            if self._due(key_id):
                self._refresh()
            if self._failed and (key_id not in self._keys or self._age() > STALE_S):
                raise IssuerUnavailableError(
                    "the issuer of tokens does not answer; use an API key or try again later"
                )
            return self._keys.get(key_id)

    def _due(self, key_id: str) -> bool:
        wanted = key_id not in self._keys or self._age() > FRESH_S
        pause = DOWN_S if self._age() > STALE_S else ASK_AGAIN_S
        return wanted and (self._tried_at is None or self._clock() - self._tried_at >= pause)

    def _age(self) -> float:
        return float("inf") if self._fetched_at is None else self._clock() - self._fetched_at

    def _refresh(self) -> None:
        try:
            self._keys = self._fetch()
            self._fetched_at, self._failed = self._clock(), False
        except (httpx.HTTPError, httpx.InvalidURL, ValueError, TypeError, KeyError) as error:
            self._failed = True
            log.error("issuer_unavailable", kind=type(error).__name__)
        self._tried_at = self._clock()

    def _fetch(self) -> dict[str, jwt.PyJWK]:
        found = self._get(self._issuer.rstrip("/") + DISCOVERY)
        if found["issuer"] != self._issuer:
            raise ValueError("the discovery document is another issuer's")
        keys = self._get(safe_url(str(found["jwks_uri"])))["keys"]
        usable = (_usable(key) for key in keys)
        return {str(key.key_id): key for key in usable if key is not None}

    def _get(self, url: str) -> Any:
        with self._client.stream("GET", url) as answer:
            answer.raise_for_status()
            body = bytearray()
            for piece in answer.iter_bytes():
                body += piece
                if len(body) > MAX_BYTES:
                    raise ValueError("too long for a list of keys")
        return httpx.Response(200, content=bytes(body)).json()


class Oidc:
    """Tokens of ``issuer`` for ``audience``; scopes are words of the claim ``scope_claim``."""

    def __init__(self, issuer: str, audience: str, scope_claim: str, keys: KeySet) -> None:
        self._issuer, self._audience = issuer, audience
        self._scope_claim, self._keys = scope_claim, keys

    def verify(self, token: str) -> Identity:
        """Who holds this token. Raises ``UnauthorizedError``, ``IssuerUnavailableError``."""
        try:
            claims = self._claims(token)
        except jwt.ExpiredSignatureError as error:
            raise UnauthorizedError("the token has expired; get a new one") from error
        except jwt.InvalidAudienceError as error:
            raise UnauthorizedError("the token is for another audience") from error
        except (jwt.PyJWTError, ValueError, TypeError, RecursionError) as error:
            raise UnauthorizedError("the token is not valid here") from error
        return Identity(self._actor(str(claims["sub"])), scopes_of(claims.get(self._scope_claim)))

    def _claims(self, token: str) -> dict[str, Any]:
        if len(token) > MAX_TOKEN:
            raise jwt.DecodeError("too long")
        header = jwt.get_unverified_header(token)
        key_id = header.get("kid")
        if header.get("alg") not in ALGORITHMS.values() or not isinstance(key_id, str):
            raise jwt.InvalidAlgorithmError("no algorithm of ours, or no key id")
        key = self._keys.find(key_id)
        if key is None:
            raise jwt.InvalidKeyError("no such key")
        claims: dict[str, Any] = jwt.decode(
            token,
            key,
            algorithms=[key.algorithm_name],
            audience=self._audience,
            issuer=self._issuer,
            leeway=LEEWAY_S,
            options={"require": list(REQUIRED)},
        )
        return claims

    def _actor(self, subject: str) -> str:
        digest = hashlib.sha256(f"{self._issuer}\0{subject}".encode()).hexdigest()
        return f"oidc:{digest[:16]}"


def open_oidc(settings: Settings) -> Oidc | None:
    """``None`` where no issuer is set; nothing is asked yet. Raises ``ConfigError``."""
    issuer, audience = settings.oidc_issuer, settings.oidc_audience
    if issuer is None:
        return None
    if audience is None:
        raise ConfigError("AQCF_OIDC_ISSUER needs AQCF_OIDC_AUDIENCE: whom its tokens are for")
    try:
        trust = ssl.create_default_context(cafile=settings.oidc_ca)
        client = httpx.Client(
            verify=trust, timeout=TIMEOUT, trust_env=False, headers={"Accept": "application/json"}
        )
        keys = KeySet(safe_url(issuer), client)
    except (ValueError, OSError) as error:
        raise ConfigError("AQCF_OIDC_ISSUER has to be https, AQCF_OIDC_CA a PEM file") from error
    return Oidc(issuer, audience, settings.oidc_scope_claim, keys)


def safe_url(url: str) -> str:
    """``url``, which nobody on the way can answer for; raises ``ValueError``."""
    parts = urlsplit(url)
    local = parts.scheme == "http" and is_loopback(parts.hostname or "")
    if not local and (parts.scheme != "https" or not parts.hostname):
        raise ValueError("the issuer has to be asked over https")
    return url


def scopes_of(claim: object) -> frozenset[str]:
    """Ours among the words of a text or a list; other words are for others."""
    words = claim.split() if isinstance(claim, str) else claim if isinstance(claim, list) else ()
    return frozenset(scope for scope in SCOPES if scope in words)


def _usable(key: Mapping[str, Any]) -> jwt.PyJWK | None:
    """A signing key of ours with a key id; ``None`` for all others a set may hold."""
    algorithm = ALGORITHMS.get(str(key.get("kty")), "")
    if not isinstance(key.get("kid"), str) or key.get("use", "sig") != "sig":
        return None
    if key.get("alg", algorithm) != algorithm or key.get("crv", "P-256") != "P-256":
        return None
    try:
        found = jwt.PyJWK(dict(key), algorithm)
    except (jwt.PyJWTError, ValueError, TypeError):
        return None
    weak = isinstance(found.key, RSAPublicKey) and found.key.key_size < RSA_BITS
    return None if weak else found
