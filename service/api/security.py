"""Who is calling, and what they may do.

A key (``Authorization: Bearer aqcf_…`` or ``X-API-Key``) or a bearer token of the site's issuer is
asked for, except where a single user serves themselves: bound to loopback, no issuer set and no key
made yet, and the request from loopback and not through a proxy. The first key closes that door too.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Final

from fastapi import Depends, Request, Security
from fastapi.security import APIKeyHeader, HTTPBearer
from fastapi.security.http import HTTPAuthorizationCredentials

from ..container import Container
from ..domain import ANONYMOUS
from ..errors import ForbiddenError, UnauthorizedError, UnsafeAddressError
from ..settings import LOOPBACK_NAMES, Settings, is_loopback
from ..storage.keys import PREFIX, SCOPES, KeyStore
from .oidc import Oidc

PROXY_HEADERS: Final = ("forwarded", "x-forwarded-for", "x-real-ip")
BEARER: Final = HTTPBearer(
    auto_error=False,
    description="An API key, `aqcf_<id>_<secret>`, or a token of the site's issuer.",
)
HEADER: Final = APIKeyHeader(name="X-API-Key", auto_error=False, scheme_name="ApiKey")


@dataclass(frozen=True)
class Caller:
    """``actor``: the key's id, or ``oidc:`` and a hash, for the audit."""

    actor: str
    scopes: frozenset[str]

    def may(self, scope: str) -> bool:
        return scope in self.scopes or "admin" in self.scopes


LOCAL_USER: Final = Caller(ANONYMOUS, frozenset(SCOPES))


def allowed_hosts(settings: Settings) -> frozenset[str] | None:
    """Names for the Host check; ``None`` where any will do because keys are asked for."""
    if not is_loopback(settings.host):
        return None
    return LOOPBACK_NAMES | {settings.host.lower()}


def check_address(settings: Settings, keys: KeyStore) -> None:
    """Refuse to serve a public address that nobody has to log in to: ``UnsafeAddressError``."""
    if is_loopback(settings.host) or settings.oidc_issuer is not None:
        return
    if not keys.any_active():
        raise UnsafeAddressError(
            f"{settings.host} can be reached from outside and there is no API key; "
            "make one first, set AQCF_OIDC_ISSUER, or serve on 127.0.0.1"
        )


def caller_of(
    request: Request,
    bearer: Annotated[HTTPAuthorizationCredentials | None, Security(BEARER)],
    header: Annotated[str | None, Security(HEADER)],
) -> Caller:
    """The caller of a request; ``UnauthorizedError`` when nobody we know."""
    caller = _identify(request, bearer.credentials if bearer else None, header)
    request.state.actor = caller.actor  # for the audit of what is refused to them
    return caller


def needs(scope: str) -> Callable[[Caller], Caller]:
    """A dependency: the caller, who has ``scope``; ``ForbiddenError`` otherwise."""

    def check(caller: Annotated[Caller, Depends(caller_of)]) -> Caller:
        if not caller.may(scope):
            raise ForbiddenError(f"this key or token does not have the scope {scope!r}")
        return caller

    return check


def _identify(request: Request, bearer: str | None, header: str | None) -> Caller:
    container: Container = request.app.state.container
    oidc: Oidc | None = request.app.state.oidc
    if bearer is not None and oidc is not None and not bearer.startswith(f"{PREFIX}_"):
        found = oidc.verify(bearer)
        return Caller(found.actor, found.scopes)
    if (text := bearer if bearer is not None else header) is not None:
        return _known(container.keys, text)
    if _local(request, container):
        return LOCAL_USER
    raise UnauthorizedError("this service asks for an API key (Authorization: Bearer …)")


def _known(keys: KeyStore, text: str) -> Caller:
    key = keys.verify(text)
    if key is None:
        raise UnauthorizedError("this API key is not known or was revoked")
    return Caller(key.id, key.scopes)


def _local(request: Request, container: Container) -> bool:
    return (
        is_loopback(container.settings.host)
        and container.settings.oidc_issuer is None
        and request.client is not None
        and is_loopback(request.client.host)
        and not any(name in request.headers for name in PROXY_HEADERS)
        and not container.keys.any_active()
    )
