"""Every error as an RFC 9457 problem: one table from class to status, one shape for all of them.

A problem never echoes what the client sent: a header, a query value or a file name can hold a
patient's name. ``receipt`` is there where series were looked at.
"""

import dataclasses
from collections.abc import Iterable, Mapping
from http import HTTPStatus
from typing import Any, Final

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from model.errors import (
    AqcfError,
    BackendBrokenError,
    BackendError,
    CancelledError,
    ConfigError,
    ExportParityError,
    GeometryError,
    InputError,
    InputTooLargeError,
    ModelFolderError,
    OutOfMemoryError,
)

from ..dicom.errors import DicomInputError, DicomTooLargeError, SegMismatchError
from ..errors import (
    ArchiveError,
    BusyError,
    ConflictError,
    DamagedArtifactError,
    EmptyUploadError,
    ForbiddenError,
    IdempotencyKeyReusedError,
    IssuerUnavailableError,
    LedgerUnavailableError,
    ModelUnavailableError,
    NotConfirmedError,
    NotFoundError,
    PhantomsOnlyError,
    RoleSettingsError,
    ServiceError,
    StateLockedError,
    StorageFullError,
    StoreUnavailableError,
    TimeLimitError,
    TooLargeForDeviceError,
    TracingUnavailableError,
    UnauthorizedError,
    UndeliverableError,
    UnknownDestinationError,
    UnknownModelError,
    UnknownProfileError,
    UnsafeAddressError,
    UnsupportedMediaError,
    UploadError,
    UploadTooLargeError,
    WorkerBrokenError,
)
from ..observability import get_logger
from ..pacs.errors import PacsDeniedError, PacsRefusedError, PacsUnavailableError
from ..storage.database import UNREACHABLE

PROBLEM_JSON: Final = "application/problem+json"
HTTP_CODES: Final[Mapping[int, str]] = {
    400: "bad_request",
    404: "not_found",
    405: "method_not_allowed",
    413: "upload_too_large",
}

RETRY_S: Final = 5  # after which a database, a store or an issuer is asked again
AWAY: Final = (LedgerUnavailableError, StoreUnavailableError, IssuerUnavailableError)

log = get_logger(__name__)


class BadMultipartError(UploadError):
    """The body is not the multipart/form-data that its header promises."""

    code = "bad_multipart"


class UploadTimeoutError(UploadError):
    """The client stopped sending in the middle of its upload."""

    code = "upload_timeout"


class MisdirectedError(ServiceError):
    """The Host header names another host than the one this service answers for."""

    code = "unknown_host"


class CrossSiteError(ForbiddenError):
    """A page of another site tried to change something here."""

    code = "cross_site_request"


STATUS: Final[Mapping[type[AqcfError], int]] = {
    InputError: 422,
    InputTooLargeError: 413,
    GeometryError: 422,
    DicomInputError: 422,
    DicomTooLargeError: 413,
    UploadError: 422,
    EmptyUploadError: 400,
    UnsupportedMediaError: 415,
    ArchiveError: 422,
    UploadTooLargeError: 413,
    TooLargeForDeviceError: 413,
    BadMultipartError: 400,
    UploadTimeoutError: 408,
    UnknownModelError: 422,
    PhantomsOnlyError: 422,
    UnknownProfileError: 422,
    UnknownDestinationError: 422,
    NotConfirmedError: 502,
    UndeliverableError: 409,
    IdempotencyKeyReusedError: 422,
    NotFoundError: 404,
    ConflictError: 409,
    CancelledError: 409,
    BusyError: 429,
    StorageFullError: 507,
    UnauthorizedError: 401,
    ForbiddenError: 403,
    CrossSiteError: 403,
    MisdirectedError: 421,
    LedgerUnavailableError: 503,
    StoreUnavailableError: 503,
    IssuerUnavailableError: 503,
    ModelUnavailableError: 503,
    PacsUnavailableError: 503,
    PacsDeniedError: 502,
    PacsRefusedError: 502,
    ModelFolderError: 503,
    StateLockedError: 503,
    BackendError: 503,
    BackendBrokenError: 503,
    OutOfMemoryError: 503,
    WorkerBrokenError: 503,
    TimeLimitError: 503,
    ServiceError: 500,
    RoleSettingsError: 500,
    TracingUnavailableError: 500,
    UnsafeAddressError: 500,
    ConfigError: 500,
    ExportParityError: 500,
    SegMismatchError: 500,
    DamagedArtifactError: 500,
    AqcfError: 500,
}


def status_of(kind: type[AqcfError]) -> int:
    """The HTTP status of an error class: its own row, else that of its nearest listed ancestor."""
    return next(STATUS[base] for base in kind.__mro__ if base in STATUS)


def problem(
    status: int,
    code: str,
    detail: str,
    *,
    headers: Mapping[str, str] | None = None,
    **members: Any,
) -> JSONResponse:
    """An ``application/problem+json`` response; ``members`` that are ``None`` are left out."""
    body = {
        "type": f"urn:aqcf:problem:{code}",
        "title": code.replace("_", " ").capitalize(),
        "status": status,
        "detail": detail,
        "code": code,
        **{name: value for name, value in members.items() if value is not None},
    }
    return JSONResponse(
        body, status, headers=dict(headers) if headers else None, media_type=PROBLEM_JSON
    )


def problem_of(error: AqcfError) -> JSONResponse:
    """The problem of one of our errors, with its receipt and the headers its status asks for."""
    status = status_of(type(error))
    detail = error.message if status < 500 or status in {503, 507} else "The service failed."
    return problem(
        status, error.code, detail, headers=_headers(error), receipt=_receipt(error) or None
    )


def install(app: FastAPI) -> None:
    """Answer every failure of ``app`` with a problem."""
    app.add_exception_handler(AqcfError, _on_ours)
    for away in UNREACHABLE:
        app.add_exception_handler(away, _on_ledger_away)
    app.add_exception_handler(RequestValidationError, _on_validation)
    app.add_exception_handler(HTTPException, _on_http)


async def _on_ours(_: Request, error: Exception) -> JSONResponse:
    if not isinstance(error, AqcfError):
        raise error
    if status_of(type(error)) >= 500:
        log.error("request_failed", code=error.code, kind=type(error).__name__)
    return problem_of(error)


async def _on_ledger_away(_: Request, error: Exception) -> JSONResponse:
    log.error("ledger_unavailable", exc_info=error)
    return problem_of(LedgerUnavailableError("the database does not answer; try again later"))


async def _on_validation(_: Request, error: Exception) -> JSONResponse:
    if not isinstance(error, RequestValidationError):
        raise error
    fields = [_field(found) for found in error.errors()]
    detail = "; ".join(f"{found['parameter']}: {found['detail']}" for found in fields)
    return problem(422, "invalid_parameter", detail, errors=fields)


async def _on_http(_: Request, error: Exception) -> JSONResponse:
    if not isinstance(error, HTTPException):
        raise error
    code = HTTP_CODES.get(error.status_code, "http_error")
    phrase = HTTPStatus(error.status_code).description or HTTPStatus(error.status_code).phrase
    return problem(error.status_code, code, phrase, headers=error.headers)


def _field(found: Mapping[str, Any]) -> dict[str, str]:
    """Where and what, without the value: pydantic's message names limits and choices only. A name
    that is not ours is the client's own text."""
    known = found["loc"][:-1] if found["type"] == "extra_forbidden" else found["loc"]
    place = [str(part) for part in known]
    return {"in": place[0], "parameter": ".".join(place[1:]) or place[0], "detail": found["msg"]}


def _headers(error: AqcfError) -> dict[str, str] | None:
    if isinstance(error, BusyError):
        return {"Retry-After": str(error.retry_after_s)}
    if isinstance(error, AWAY):
        return {"Retry-After": str(RETRY_S)}
    if isinstance(error, UnauthorizedError):
        return {"WWW-Authenticate": 'Bearer realm="aqcf"'}
    return None


def _receipt(error: AqcfError) -> list[dict[str, Any]]:
    lines: Iterable[Any] = getattr(error, "receipt", ())
    return [dict(line) if isinstance(line, Mapping) else dataclasses.asdict(line) for line in lines]
