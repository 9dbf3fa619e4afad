"""Who did what: GET /v1/audit."""

import re
from typing import Annotated, Final, TypeAlias

from fastapi import APIRouter, Query
from pydantic import AfterValidator, AwareDatetime, BeforeValidator

from ...audit import AuditFilter
from ..audit_schemas import AuditLine, AuditList
from ..deps import ACTOR, Admin, Services
from ..responses import problems

router = APIRouter(tags=["service"])

JOB: Final = r"^[0-9a-f-]{32,36}$"
DATE: Final = re.compile(r"\d{4}-")


def _written_out(value: object) -> object:
    """RFC 3339; pydantic would take seconds since 1970 too."""
    if isinstance(value, str) and not DATE.match(value):
        raise ValueError("a date and a time with its zone")
    return value


def _plausible(moment: AwareDatetime) -> AwareDatetime:
    """Years that every time zone and database can do."""
    if not 1970 <= moment.year < 9999:
        raise ValueError("a year from 1970 to 9998")
    return moment


Moment: TypeAlias = Annotated[
    AwareDatetime, BeforeValidator(_written_out), AfterValidator(_plausible)
]


@router.get(
    "/v1/audit", response_model=AuditList, responses=problems(422), summary="Who did what, and when"
)
def list_audit(
    *,
    container: Services,
    caller: Admin,
    since: Annotated[Moment | None, Query(description="From here on.")] = None,
    until: Annotated[Moment | None, Query(description="Up to here, not included.")] = None,
    segmentation: Annotated[str | None, Query(pattern=JOB)] = None,
    actor: Annotated[str | None, Query(pattern=ACTOR)] = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    cursor: Annotated[str | None, Query(max_length=32)] = None,
) -> AuditList:
    """Newest first, in pages: pass `next` as `cursor` for the page after. For `admin` only."""
    wanted = AuditFilter(since, until, segmentation, actor)
    page = container.audit.page(wanted, cursor=cursor, limit=limit)
    container.audit.record(caller.actor, "audit", segmentation)
    lines = [
        AuditLine(at=line.at, actor=line.actor, action=line.action, segmentation=line.job_id)
        for line in page.entries
    ]
    return AuditList(items=lines, next=page.cursor)
