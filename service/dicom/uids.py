"""UIDs derived from a key: the same job always writes the same UIDs."""

import hashlib
import re
import uuid

_VALID = re.compile(r"(0|[1-9]\d*)(\.(0|[1-9]\d*))*")


def derived_uid(key: str, role: str) -> str:
    """A UUID-derived UID (PS3.5 B.2), ``2.25.`` and at most 39 digits, from the SHA-256 of both.

    ``role`` tells the UIDs of one job apart ("seg series", "lesion 3", ...).
    """
    digest = hashlib.sha256(f"{key}\x00{role}".encode()).digest()
    return f"2.25.{uuid.UUID(bytes=digest[:16], version=4).int}"


def is_uid(text: str) -> bool:
    """Whether the text is a valid UID (PS3.5 9.1)."""
    return 0 < len(text) <= 64 and _VALID.fullmatch(text) is not None
