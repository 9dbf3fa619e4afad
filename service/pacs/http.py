"""A client of a node's DICOMweb server: its secrets, its CA, timeouts, no redirects."""

import ssl
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import httpx

from ..site import DicomWebNode
from .errors import PacsDeniedError, PacsRefusedError, PacsUnavailableError

T = TypeVar("T")
DICOM_JSON = "application/dicom+json"
TIMEOUT = httpx.Timeout(60.0, connect=10.0)  # seconds; 60 without a byte, not for the whole
REFUSING = frozenset({400, 406, 409, 410, 411, 413, 415, 422, 501})
WHY = {
    401: "asks for other credentials",
    403: "forbids it",
    404: "knows no such path",
    405: "knows no such service",
}


class Web:
    """Requests relative to the node's base URL; an answer is a success or one of our errors."""

    def __init__(self, node: DicomWebNode, client: httpx.Client) -> None:
        self._node = node
        self._client = client

    def json(self, path: str, params: Iterable[tuple[str, str]] = ()) -> list[dict[str, Any]]:
        """A DICOM JSON array; empty for 204. Raises as ``request``, and ``PacsUnavailableError``
        for an answer that is no such thing."""
        query = tuple(params)
        answer = self.request("GET", path, params=query, headers={"Accept": DICOM_JSON})
        if answer.status_code == httpx.codes.NO_CONTENT or not answer.content:
            return []
        return _array(answer, self._node)

    def request(self, method: str, path: str, **options: Any) -> httpx.Response:
        """Raises ``PacsUnavailableError`` (network, 5xx, 408, 429), ``PacsDeniedError`` (401, 403,
        404, 405, redirects) and ``PacsRefusedError`` (other 4xx)."""
        with _network_told(self._node):
            answer = self._client.request(method, path, **options)
        return checked(answer, self._node)

    @contextmanager
    def stream(self, method: str, path: str, **options: Any) -> Iterator[httpx.Response]:
        """As ``request``; the body is read as it comes."""
        with (
            _network_told(self._node),
            self._client.stream(method, path, **options) as answer,
        ):
            yield checked(answer, self._node)

    def send(self, path: str, **options: Any) -> httpx.Response:
        """POST; an answer about the content (409, 4xx of ``REFUSING``) is handed out as it is."""
        with _network_told(self._node):
            answer = self._client.post(path, **options)
        return answer if answer.status_code in REFUSING else checked(answer, self._node)


@contextmanager
def web(node: DicomWebNode, timeout: httpx.Timeout = TIMEOUT) -> Iterator[Web]:
    """A client for one errand. Raises ``PacsDeniedError`` when a file of the node's section cannot
    be read."""
    with httpx.Client(
        base_url=node.url.rstrip("/"),
        auth=_basic(node),
        headers=_bearer(node),
        verify=_trust(node),
        timeout=timeout,
        follow_redirects=False,  # the credentials are for this host alone
        trust_env=False,
    ) as client:
        yield Web(node, client)


def checked(answer: httpx.Response, node: DicomWebNode) -> httpx.Response:
    """The answer if it is a success; raises otherwise. Never repeats what the node said."""
    code = answer.status_code
    if answer.is_success:
        return answer
    if answer.is_redirect:
        raise PacsDeniedError(f"{node.url} redirects; put the final address into the site file")
    if code in REFUSING:
        raise PacsRefusedError(f"{node.url} refuses the request with {code}")
    if code in WHY:
        raise PacsDeniedError(f"{node.url} {WHY[code]} ({code})")
    raise PacsUnavailableError(f"{node.url} answers {code}")


@contextmanager
def _network_told(node: DicomWebNode) -> Iterator[None]:
    try:
        yield
    except httpx.HTTPError as error:
        kind = type(error).__name__
        raise PacsUnavailableError(f"{node.url} is not reached, or broke off: {kind}") from error


def _array(answer: httpx.Response, node: DicomWebNode) -> list[dict[str, Any]]:
    try:
        found = answer.json()
    except ValueError as error:
        raise PacsUnavailableError(f"{node.url} does not answer with DICOM JSON") from error
    if not isinstance(found, list) or not all(isinstance(item, dict) for item in found):
        raise PacsUnavailableError(f"{node.url} does not answer with DICOM JSON")
    return found


def _basic(node: DicomWebNode) -> httpx.BasicAuth | None:
    if node.username is None:
        return None
    password = "" if node.password_file is None else _secret(node.password_file)
    return httpx.BasicAuth(node.username, password)


def _bearer(node: DicomWebNode) -> dict[str, str]:
    if node.token_file is None:
        return {}
    return {"Authorization": f"Bearer {_secret(node.token_file)}"}


def _trust(node: DicomWebNode) -> ssl.SSLContext | bool:
    if node.ca is None:
        return True
    return _told(lambda: ssl.create_default_context(cafile=node.ca), "ca")


def _secret(path: Path) -> str:
    return _told(lambda: path.read_text(encoding="utf-8").strip(), "password_file or token_file")


def _told(read: Callable[[], T], name: str) -> T:
    try:
        return read()
    except (OSError, ValueError) as error:
        raise PacsDeniedError(f"a file of the node cannot be read; check {name}") from error
