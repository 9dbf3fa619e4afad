"""Studies from a node of the site: POST /v1/pulls."""

import re
from typing import Annotated, Any, Final

from fastapi import APIRouter, Path, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError
from starlette.concurrency import run_in_threadpool
from starlette.responses import JSONResponse

from ... import pull
from ...domain import NewPull, Priority, Pull
from ...errors import NotFoundError, UploadTooLargeError
from ..deps import Reader, Services, Writer
from ..pull_schemas import PULLS, PullRequest, PullStatus
from ..receive import chunks
from ..responses import problems
from ..schemas import BASE

router = APIRouter(tags=["pulls"])

MAX_BODY: Final = 16 * 1024  # bytes
PULL_ID: Final = re.compile(r"[0-9a-f-]{32,36}")
BODY: Final[dict[str, Any]] = {
    "requestBody": {
        "required": True,
        "content": {"application/json": {"schema": PullRequest.model_json_schema()}},
    }
}


@router.post(
    PULLS,
    status_code=202,
    response_model=PullStatus,
    responses=problems(400, 408, 413, 422, 429),
    openapi_extra=BODY,
    summary="Fetch a study from a node",
)
async def create_pull(request: Request, container: Services, caller: Writer) -> Response:
    """Answer 202 with the new pull, which is done soon after and survives a restart, or with the
    unfinished one that asks for the same."""
    asked = _asked(await _body(request), caller.actor)
    made = await run_in_threadpool(pull.ask, container, asked)
    body = shown(made).model_dump(mode="json", by_alias=True)
    return JSONResponse(body, 202, {"Location": f"{PULLS}/{made.id}"})


@router.get(
    PULLS + "/{pull_id}",
    response_model=PullStatus,
    responses=problems(404),
    summary="What has become of a pull",
)
def get_pull(
    container: Services,
    caller: Reader,
    pull_id: Annotated[str, Path(description="The id of a pull.")],
) -> PullStatus:
    """How far it came, why it waits or failed, and the segmentation that it led to."""
    if not PULL_ID.fullmatch(pull_id):
        raise NotFoundError("there is no pull of this id", code="pull_not_found")
    found = container.pulls.require(pull_id)
    container.audit.record(caller.actor, "view_pull", found.job_id)
    return shown(found)


def shown(found: Pull) -> PullStatus:
    """Without its UIDs."""
    links = {"self": f"{PULLS}/{found.id}"}
    if found.job_id is not None:
        links["segmentation"] = f"{BASE}/{found.job_id}"
    return PullStatus(
        id=found.id,
        state=found.state,
        node=found.asked.node,
        modality=found.asked.modality,
        rules=found.asked.modality is None,
        instances=found.instances,
        expected=found.expected,
        attempts=found.attempts,
        code=found.code,
        segmentation=found.job_id,
        created_at=found.created_at,
        updated_at=found.updated_at,
        links=links,
    )


async def _body(request: Request) -> PullRequest:
    """Read and checked; never more than ``MAX_BODY`` bytes in memory."""
    body = bytearray()
    async for chunk in chunks(request):
        body += chunk
        if len(body) > MAX_BODY:
            raise UploadTooLargeError(f"the request is larger than {MAX_BODY // 1024} KiB")
    try:
        return PullRequest.model_validate_json(bytes(body))
    except ValidationError as error:
        found = error.errors(include_url=False, include_context=False, include_input=False)
        raise RequestValidationError(
            [{**one, "loc": ("body", *one["loc"])} for one in found]
        ) from error


def _asked(body: PullRequest, actor: str) -> NewPull:
    return NewPull(
        node=body.node,
        study_uid=body.study_instance_uid,
        actor=actor,
        series_uid=body.series_instance_uid,
        modality=body.modality,
        model=body.model,
        profile=body.profile,
        destinations=tuple(dict.fromkeys(body.destinations)),
        priority=Priority(body.priority),
    )
