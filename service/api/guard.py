"""What every request passes before a route sees it.

* **Host.** Where no key is asked for (loopback, embedded) the Host header has to name loopback:
  a foreign page cannot reach the service through a name that it rebinds to 127.0.0.1.
* **Origin.** A browser says with each unsafe request where it comes from (``Sec-Fetch-Site``,
  ``Origin``). Anything but this very origin is refused, with keys or without; programs send
  neither header and pass. No CORS header is ever sent, and results carry
  ``Cross-Origin-Resource-Policy: same-origin``, so a foreign page can neither read nor embed them.
* **Headers.** A policy that lets the page load from here only; nothing is cached, sniffed, framed.
"""

from collections.abc import Callable, Mapping
from time import perf_counter
from typing import Final, TypeAlias
from urllib.parse import urlsplit
from uuid import uuid4

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from model.errors import AqcfError

from ..observability import get_logger
from .errors import CrossSiteError, MisdirectedError, problem, problem_of
from .traced import method_of

Denied: TypeAlias = Callable[[Scope, int], None]

DENIED: Final = frozenset({401, 403})
UNSAFE: Final = frozenset({"POST", "PUT", "PATCH", "DELETE"})
OWN_SITES: Final = frozenset({"same-origin", "none"})
POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
SECURITY: Final[Mapping[str, str]] = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=()",
}

log = get_logger(__name__)


class Guard:
    """``hosts``: the names that a Host header may hold, or ``None`` where keys protect instead.
    ``denied`` is told of every request that is answered with 401 or 403, before the answer."""

    def __init__(self, app: ASGIApp, hosts: frozenset[str] | None, denied: Denied) -> None:
        self.app = app
        self.hosts = hosts
        self.denied = denied

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        outgoing = _Outgoing(scope, send, self.denied)
        try:
            self._check(scope)
        except AqcfError as error:
            await problem_of(error)(scope, receive, outgoing.send)
        else:
            await self._answer(scope, receive, outgoing)
        outgoing.report()

    def _check(self, scope: Scope) -> None:
        headers = Headers(scope=scope)
        host = headers.get("host", "")
        if self.hosts is not None and host_name(host) not in self.hosts:
            raise MisdirectedError("this service answers for loopback names only")
        if scope["method"] in UNSAFE and not _own_origin(headers, host):
            raise CrossSiteError("a page of another origin may not change anything here")

    async def _answer(self, scope: Scope, receive: Receive, outgoing: "_Outgoing") -> None:
        try:
            await self.app(scope, receive, outgoing.send)
        except Exception:
            # The text of a foreign exception can quote the input: it goes nowhere.
            log.exception("request_crashed", request_id=outgoing.request_id)
            if outgoing.status is None:
                answer = problem(500, "internal", "The service failed.")
                await answer(scope, receive, outgoing.send)


def host_name(host: str) -> str:
    """The name in a Host header, lower case, without port or brackets."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


def _own_origin(headers: Headers, host: str) -> bool:
    site = headers.get("sec-fetch-site")
    if site is not None:
        return site in OWN_SITES
    origin = headers.get("origin")
    return origin is None or origin.partition("://")[2] == host


class _Outgoing:
    """Adds the headers to the response, remembers its status for the log, and tells of denials."""

    def __init__(self, scope: Scope, send: Send, denied: Denied) -> None:
        self.request_id = uuid4().hex
        self.status: int | None = None
        self._scope, self._send, self._start = scope, send, perf_counter()
        self._denied = denied

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = MutableHeaders(raw=message.setdefault("headers", []))
            headers["X-Request-ID"] = self.request_id
            headers.setdefault("Cache-Control", "no-store")
            for name, value in SECURITY.items():
                headers[name] = value
            message["headers"] = headers.raw
            if message["status"] in DENIED:
                await run_in_threadpool(self._denied, self._scope, message["status"])
        await self._send(message)

    def report(self) -> None:
        """One line a request: the route's template, never its path, query or made-up method."""
        route = getattr(self._scope.get("route"), "path", "unknown")
        log.info(
            "request",
            request_id=self.request_id,
            method=method_of(self._scope),
            route=route,
            status_code=self.status,
            seconds=round(perf_counter() - self._start, 4),
        )
