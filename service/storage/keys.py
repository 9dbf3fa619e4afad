"""API keys: made once, shown once, kept as a hash."""

import hashlib
import hmac
import re
import secrets
from collections.abc import Collection
from contextlib import suppress
from datetime import UTC, datetime

from sqlalchemy import select
from sqlalchemy.exc import IntegrityError

from model.errors import ConfigError

from ..domain import ApiKey
from ..errors import NotFoundError
from .database import Database
from .tables import ApiKeyRow, AuditRow

PREFIX = "aqcf"
ADOPTABLE = re.compile(r"aqcf_[0-9a-f]{8}_[A-Za-z0-9_-]{32,200}")
SCOPES = ("read", "write", "admin")
NAME_LENGTH = 64


class KeyStore:
    """Keys look like ``aqcf_<id>_<secret>``; the id names the actor in the audit. No key comes or
    goes without its audit row, which is written in the same transaction."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def create(
        self, scopes: Collection[str] = ("read", "write"), name: str = ""
    ) -> tuple[ApiKey, str]:
        """A new key and its text, which exists nowhere else; ``name`` says what it is for. Raises
        ``ConfigError`` (``unknown_scope``, ``invalid_config``)."""
        if len(name) > NAME_LENGTH or not name.isprintable():
            raise ConfigError(
                f"a key's name is one line of at most {NAME_LENGTH} characters",
                code="invalid_config",
            )
        if unknown := set(scopes) - set(SCOPES):
            raise ConfigError(
                f"no scope is called {sorted(unknown)}; there are {', '.join(SCOPES)}",
                code="unknown_scope",
            )
        key_id = secrets.token_hex(4)
        text = f"{PREFIX}_{key_id}_{secrets.token_urlsafe(32)}"
        row = ApiKeyRow(
            id=key_id,
            sha256=_hash(text),
            name=name or None,
            scopes=sorted(scopes),
            created_at=datetime.now(UTC),
        )
        with self._database.writing() as session:
            session.add_all((row, _audit("cli", "create_key", key_id)))
            session.flush()
            return _key(row), text

    def adopt(self, text: str, scopes: Collection[str] = ("admin",)) -> None:
        """Know a key that the site made elsewhere; one that is known stays as it is, revoked or
        not. Raises ``ConfigError`` (``weak_key``)."""
        text = text.strip()
        if not ADOPTABLE.fullmatch(text):
            raise ConfigError(
                f"a key has to look like {PREFIX}_<8 hex digits>_<32 or more characters>",
                code="weak_key",
            )
        key_id = text.split("_", 2)[1]
        row = ApiKeyRow(
            id=key_id, sha256=_hash(text), scopes=sorted(scopes), created_at=datetime.now(UTC)
        )
        with suppress(IntegrityError), self._database.writing() as session:  # another was faster
            if session.get(ApiKeyRow, key_id) is None:
                session.add_all((row, _audit("settings", "create_key", key_id)))

    def verify(self, text: str) -> ApiKey | None:
        """The key this text belongs to, unless it is unknown or revoked. Constant in time."""
        parts = text.split("_", 2)
        if len(parts) != 3 or parts[0] != PREFIX:
            return None
        with self._database.reading() as session:
            row = session.get(ApiKeyRow, parts[1])
            known = row is not None and hmac.compare_digest(row.sha256, _hash(text))
            return _key(row) if row is not None and known and row.revoked_at is None else None

    def revoke(self, key_id: str) -> None:
        """Raises ``NotFoundError`` (``key_not_found``)."""
        with self._database.writing() as session:
            row = session.get(ApiKeyRow, key_id)
            if row is None:
                raise NotFoundError("there is no API key of this id", code="key_not_found")
            if row.revoked_at is None:
                row.revoked_at = datetime.now(UTC)
                session.add(_audit("cli", "revoke_key", key_id))

    def all(self) -> tuple[ApiKey, ...]:
        with self._database.reading() as session:
            rows = session.scalars(select(ApiKeyRow).order_by(ApiKeyRow.created_at))
            return tuple(_key(row) for row in rows)

    def any_active(self) -> bool:
        """Whether anybody could log in (asked before a public address is served)."""
        return any(key.revoked_at is None for key in self.all())


def _key(row: ApiKeyRow) -> ApiKey:
    return ApiKey(row.id, frozenset(row.scopes), row.created_at, row.revoked_at, row.name or "")


def _audit(actor: str, verb: str, key_id: str) -> AuditRow:
    return AuditRow(at=datetime.now(UTC), actor=actor, action=f"{verb}:{key_id}", job_id=None)


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
