"""One S3 bucket: requests that are tried again, and one error for "not now".

A connection that stalls is noticed after ``SILENCE_S``. Big files go up in parts, each of which has
to be through by then.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

import obstore
from obstore.exceptions import BaseError
from obstore.store import S3Store

from model.errors import ConfigError

from ..errors import StoreUnavailableError
from ..observability import get_logger
from ..settings import Settings

PART: Final = 8 * 1024**2
PIECE: Final = 1024**2
CONNECT_S: Final = 3
SILENCE_S: Final = 30
DOWNLOAD_S: Final = 900
RETRIES: Final = 8
RETRY_S: Final = 15
BACKOFF_S: Final = 2
DELETES: Final = 500

log = get_logger(__name__)


@dataclass(frozen=True)
class Found:
    """An object: its key below the prefix, its size in bytes, and when it was written."""

    key: str
    size: int
    at: datetime


class Bucket:
    """Objects by key below a prefix. Every method raises ``StoreUnavailableError``."""

    def __init__(self, store: S3Store, quick: S3Store) -> None:
        self._store = store
        self._quick = quick

    def put(self, key: str, source: Path | bytes) -> None:
        """Store an object, or replace it; readers see the old one until the new one is whole."""
        with _answering():
            obstore.put(self._store, key, source, chunk_size=PART)

    def get(self, key: str) -> bytes | None:
        """A small object; ``None`` where there is none."""
        try:
            with _answering():
                return bytes(obstore.get(self._store, key).bytes())
        except FileNotFoundError:
            return None

    def read(self, key: str) -> Iterator[bytes]:
        """The content of an object, in pieces. Raises ``FileNotFoundError``."""
        with _answering():
            yield from map(bytes, obstore.get(self._store, key).stream(min_chunk_size=PIECE))

    def objects(self, prefix: str) -> Iterator[Found]:
        """Every object below ``prefix``, which names a folder."""
        with _answering():
            for batch in obstore.list(self._store, prefix):
                for meta in batch:
                    yield Found(meta["path"], meta["size"], meta["last_modified"])

    def folders(self, prefix: str) -> tuple[str, ...]:
        """The names right below ``prefix`` that have objects below them."""
        with _answering():
            found = obstore.list_with_delimiter(self._store, prefix)
        return tuple(name.rpartition("/")[2] for name in found["common_prefixes"])

    def delete(self, keys: Sequence[str]) -> None:
        """Remove objects; one that is gone already is no error."""
        for start in range(0, len(keys), DELETES):
            try:
                with _answering():
                    obstore.delete(self._store, list(keys[start : start + DELETES]))
            except FileNotFoundError:
                continue

    def ping(self) -> None:
        """One short request, tried once."""
        with _answering():
            obstore.list_with_delimiter(self._quick, "manifests")


def open_bucket(settings: Settings, name: str, prefix: str) -> Bucket:
    """A client with the endpoint and keys of ``settings``; asks nothing yet. Raises
    ``ConfigError``."""
    if (settings.s3_access_key is None) != (settings.s3_secret_key is None):
        raise ConfigError("AQCF_S3_ACCESS_KEY and AQCF_S3_SECRET_KEY go together")
    return Bucket(
        _client(settings, name, prefix, retries=RETRIES, silence_s=SILENCE_S),
        _client(settings, name, prefix, retries=0, silence_s=CONNECT_S),
    )


def _client(settings: Settings, name: str, prefix: str, *, retries: int, silence_s: int) -> S3Store:
    endpoint = settings.s3_endpoint
    options = {
        "endpoint": endpoint,
        "region": settings.s3_region or "us-east-1",
        "access_key_id": settings.s3_access_key,
        "secret_access_key": settings.s3_secret_key,
    }
    given = {key: value for key, value in options.items() if value is not None}
    return S3Store(
        name,
        prefix=prefix or None,
        client_options={
            "connect_timeout": timedelta(seconds=CONNECT_S),
            "read_timeout": timedelta(seconds=silence_s),
            "timeout": timedelta(seconds=DOWNLOAD_S),
            "allow_http": endpoint is not None and endpoint.startswith("http://"),
        },
        retry_config={
            "max_retries": retries,
            "retry_timeout": timedelta(seconds=RETRY_S),
            "backoff": {"max_backoff": timedelta(seconds=BACKOFF_S)},
        },
        **given,  # type: ignore[arg-type]
    )


@contextmanager
def _answering() -> Iterator[None]:
    """What S3 says in an error can hold keys and addresses: it goes nowhere."""
    try:
        yield
    except BaseError as error:
        log.warning("store_failed", kind=type(error).__name__)
        raise StoreUnavailableError(
            "the artifact store does not answer; try again later"
        ) from error
