"""A span for every request: its method, the route's template and the status, nothing else of it."""

from typing import Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..tracing import Tracing

METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
POLLED: Final = frozenset({"/healthz", "/readyz", "/metrics"})  # every few seconds, by machines
OTHER: Final = "other"
FAILED: Final = 500


class Traced:
    """The outermost layer, where there is a collector. No header of the caller is read: its trace
    context could hold anything."""

    def __init__(self, app: ASGIApp, tracing: Tracing) -> None:
        self.app = app
        self.tracing = tracing

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in POLLED:
            await self.app(scope, receive, send)
            return
        status = FAILED

        async def noted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        with self.tracing.span("request") as span:
            try:
                await self.app(scope, receive, noted)
            finally:
                span.tell(method=method_of(scope), route=_route(scope), status_code=status)


def method_of(scope: Scope) -> str:
    """One of ``METHODS``, or ``other``: a client may send any word for one."""
    return scope["method"] if scope["method"] in METHODS else OTHER


def _route(scope: Scope) -> str:
    return str(getattr(scope.get("route"), "path", OTHER))
