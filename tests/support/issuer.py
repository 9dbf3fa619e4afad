"""An issuer of tokens on a free loopback port: discovery, keys, and tokens of every kind."""

import base64
import hashlib
import hmac
import json
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

AUDIENCE = "aqcf"


def encode(value: bytes) -> str:
    return base64.urlsafe_b64encode(value).rstrip(b"=").decode()


@dataclass
class SigningKey:
    """A key pair and how the issuer publishes it."""

    key_id: str
    kind: str = "RSA"
    bits: int = 2048
    extra: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.private: Any = (
            rsa.generate_private_key(public_exponent=65537, key_size=self.bits)
            if self.kind == "RSA"
            else ec.generate_private_key(ec.SECP256R1())
        )

    @property
    def algorithm(self) -> str:
        return "RS256" if self.kind == "RSA" else "ES256"

    @property
    def public_pem(self) -> bytes:
        pem: bytes = self.private.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        return pem

    def published(self) -> dict[str, Any]:
        kind = jwt.algorithms.RSAAlgorithm if self.kind == "RSA" else jwt.algorithms.ECAlgorithm
        plain: dict[str, Any] = json.loads(kind.to_jwk(self.private.public_key()))
        return plain | {"kid": self.key_id, "use": "sig"} | self.extra


class Issuer:
    """``keys`` are published; ``asked`` counts fetches of them. ``answers`` replaces documents by
    path; ``status`` makes every answer fail."""

    def __init__(self) -> None:
        self.keys: list[SigningKey] = []
        self.asked = 0
        self.answers: dict[str, bytes] = {}
        self.status = 200
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.url = f"http://127.0.0.1:{self._server.server_port}/realms/clinic"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def token(self, key: SigningKey, head: dict[str, Any] | None = None, **changes: Any) -> str:
        """Good for five minutes; ``changes`` replace claims, ``None`` removes them."""
        now = int(time.time())
        claims: dict[str, Any] = {
            "iss": self.url,
            "aud": AUDIENCE,
            "sub": "f81d4fae-jane-doe",
            "iat": now,
            "exp": now + 300,
            "scope": "openid read profile",
            "name": "Jane Doe",
        } | changes
        kept = {name: value for name, value in claims.items() if value is not None}
        headers = {"kid": key.key_id} | (head or {})
        headers = {name: value for name, value in headers.items() if value is not None}
        return jwt.encode(kept, key.private, algorithm=key.algorithm, headers=headers)

    def _document(self, path: str) -> bytes | None:
        if path in self.answers:
            return self.answers[path]
        if path == "/realms/clinic/.well-known/openid-configuration":
            return json.dumps({"issuer": self.url, "jwks_uri": f"{self.url}/certs"}).encode()
        if path == "/realms/clinic/certs":
            self.asked += 1
            return json.dumps({"keys": [key.published() for key in self.keys]}).encode()
        return None

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        issuer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                body = issuer._document(self.path)
                self.send_response(issuer.status if body is not None else 404)
                self.send_header("Content-Length", str(len(body or b"")))
                self.end_headers()
                self.wfile.write(body or b"")

            def log_message(self, *_: object) -> None:
                pass

        return Handler


def forged(token: str, head: dict[str, Any], secret: bytes | None = None) -> str:
    """The claims of a token under another header: unsigned, or HMAC-signed with ``secret``."""
    text = f"{encode(json.dumps(head).encode())}.{token.split('.')[1]}"
    if secret is None:
        return f"{text}."
    return f"{text}.{encode(hmac.digest(secret, text.encode(), hashlib.sha256))}"
