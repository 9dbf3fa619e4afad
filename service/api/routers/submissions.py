"""Images in: POST /v1/segmentations."""

from typing import Annotated, Any, Final

from fastapi import APIRouter, Header, Query, Request, Response
from starlette.concurrency import run_in_threadpool
from starlette.responses import JSONResponse

from model.types import Modality

from ...container import Container
from ...domain import ArtifactName, Job, Priority, SubmitOptions
from ...intake import check_destinations, submit
from ...registry import profile_of
from ..deps import Services, Writer
from ..preferences import wait_seconds, wants_dicom
from ..receive import RAW_TYPES, receive
from ..responses import Responses, problems
from ..schemas import BASE, Segmentation, segmentation
from ..watch import wait_for
from .results import result_file

router = APIRouter(tags=["segmentations"])

BINARY: Final = {"type": "string", "format": "binary"}
BODY: Final[dict[str, Any]] = {
    "requestBody": {
        "required": True,
        "description": "DICOM instances of one or more series, one zip of them, or one NIfTI.",
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["files"],
                    "properties": {"files": {"type": "array", "minItems": 1, "items": BINARY}},
                }
            },
            **{kind: {"schema": BINARY} for kind in RAW_TYPES[:4]},
        },
    }
}
DONE: Final[Responses] = {
    200: {
        "model": Segmentation,
        "description": "It has finished: the resource, or its DICOM-SEG if that was asked for.",
        "content": {"application/dicom": {"schema": BINARY}},
    }
}
KEY: Final = Header(
    min_length=1,
    max_length=255,
    pattern=r"^[\x21-\x7e]+$",
    description="The same key with the same content answers with the same segmentation.",
)


@router.post(
    BASE,
    status_code=202,
    response_model=Segmentation,
    responses=DONE | problems(400, 408, 413, 415, 422, 429, 503, 507),
    openapi_extra=BODY,
    summary="Submit a series",
)
async def create_segmentation(
    *,
    request: Request,
    container: Services,
    caller: Writer,
    modality: Annotated[Modality, Query(description="What the images are.")],
    model: Annotated[str | None, Query(max_length=64)] = None,
    profile: Annotated[str | None, Query(max_length=64, examples=["balanced"])] = None,
    series: Annotated[
        str, Query(max_length=128, description="`auto`, or a key from a receipt.")
    ] = "auto",
    priority: Annotated[
        Priority, Query(description="Urgent ones go before routine ones that wait.")
    ] = Priority.ROUTINE,
    destination: Annotated[
        list[str],
        Query(max_length=16, description="Who gets the results, by name; may be given repeatedly."),
    ] = [],  # noqa: B006  (the framework copies it)
    idempotency_key: Annotated[str | None, KEY] = None,
    prefer: Annotated[  # noqa: ARG001
        str | None, Header(description="`wait=N`: answer 200 if done in N seconds (300 at most).")
    ] = None,
) -> Response:
    """Take images in and answer 202 with the new segmentation, or 200 when it has finished.

    With `Prefer: wait=N` and `Accept: application/dicom` the answer is the DICOM-SEG itself.
    The same images with the same model and settings are one segmentation, however often they come.
    """
    options = SubmitOptions(
        modality=modality,
        model=model,
        profile=profile,
        series=series,
        idempotency_key=idempotency_key,
        actor=caller.actor,
        priority=priority,
        destinations=tuple(dict.fromkeys(destination)),
    )
    job = await _take(request, container, options)
    wait = wait_seconds(request.headers)
    job = await wait_for(container, job, wait)
    return await run_in_threadpool(_answer, request, container, job, wait)


async def _take(request: Request, container: Container, options: SubmitOptions) -> Job:
    await run_in_threadpool(_admit, container, options)
    workspace = container.artifacts.workspace()
    folder = await run_in_threadpool(workspace.__enter__)
    try:
        upload = await receive(request, folder, container)
        return await run_in_threadpool(submit, container, upload, options)
    finally:
        await run_in_threadpool(workspace.__exit__, None, None, None)


def _admit(container: Container, options: SubmitOptions) -> None:
    """Refuse before the first byte what would be refused after the last. The queue is looked at
    later where the upload may be of a job that waits: with a key, or to make it urgent."""
    settings = container.settings
    check_destinations(container, options.destinations)
    profile_of(container.models.find(options.model, options.modality), options.profile)
    if options.idempotency_key is None and options.priority is Priority.ROUTINE:
        container.jobs.admit(queue_limit=settings.queue_limit, retry_after_s=settings.retry_after_s)


def _answer(request: Request, container: Container, job: Job, wait: int) -> Response:
    headers = {"Location": f"{BASE}/{job.id}"}
    if wait:
        headers["Preference-Applied"] = f"wait={wait}"
    if job.status.finished and wants_dicom(request.headers):
        response: Response = result_file(container, job, ArtifactName.SEG)
        response.headers.update(headers)
        return response
    body = segmentation(job).model_dump(mode="json", by_alias=True)
    return JSONResponse(body, 200 if job.status.finished else 202, headers)
