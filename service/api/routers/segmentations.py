"""Segmentations as resources: list, read, follow, cancel, delete."""

from typing import Annotated, Final

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import StreamingResponse

from model.types import Modality

from ...domain import Job, JobFilter, Outcome, Status
from ...sweep import remove
from ..deps import JobId, Reader, Services, Slices, Writer, viewed
from ..responses import Responses, problems
from ..schemas import BASE, Segmentation, SegmentationList, segmentation
from ..watch import changes

router = APIRouter(tags=["segmentations"])

STREAM: Final = "text/event-stream"
EVENTS: Final[Responses] = {
    200: {
        "description": "`progress` events whose data is a Progress object; the stream ends when "
        "the segmentation has finished.",
        "content": {STREAM: {"schema": {"type": "string"}}},
    }
}


@router.get(
    BASE,
    response_model=SegmentationList,
    response_model_by_alias=True,
    responses=problems(422),
    summary="List segmentations",
)
def list_segmentations(
    *,
    container: Services,
    caller: Reader,
    status: Annotated[Status | None, Query()] = None,
    modality: Annotated[Modality | None, Query()] = None,
    outcome: Annotated[Outcome | None, Query()] = None,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
    cursor: Annotated[str | None, Query(max_length=256)] = None,
) -> SegmentationList:
    """Newest first, in pages: pass `next` as `cursor` for the page after."""
    wanted = JobFilter(status=status, modality=modality, outcome=outcome)
    page = container.jobs.page(wanted, cursor=cursor, limit=limit)
    container.audit.record(caller.actor, "list")
    return SegmentationList(items=[segmentation(job) for job in page.jobs], next=page.cursor)


@router.get(
    f"{BASE}/{{segmentation_id}}",
    response_model=Segmentation,
    responses=problems(404),
    summary="Read one segmentation",
)
def get_segmentation(job: Annotated[Job, Depends(viewed("read"))]) -> Segmentation:
    """Status, progress, outcome, measurements, receipt, seconds per stage and links."""
    return segmentation(job)


@router.get(
    f"{BASE}/{{segmentation_id}}/events",
    response_class=StreamingResponse,
    responses=EVENTS | problems(404),
    summary="Follow a segmentation",
)
def stream_segmentation_events(
    request: Request, container: Services, job: Annotated[Job, Depends(viewed("events"))]
) -> StreamingResponse:
    """Server-sent events, from the present state to the end."""
    headers = {"X-Accel-Buffering": "no"}
    events = changes(container, job, lambda: bool(request.app.state.stopping))
    return StreamingResponse(events, media_type=STREAM, headers=headers)


@router.post(
    f"{BASE}/{{segmentation_id}}/cancel",
    response_model=Segmentation,
    responses=problems(404, 409),
    summary="Cancel a segmentation",
)
def cancel_segmentation(container: Services, caller: Writer, job_id: JobId) -> Segmentation:
    """A queued one is cancelled at once, a running one stops at its next step."""
    job = container.jobs.cancel(job_id)
    container.audit.record(caller.actor, "cancel", job.id)
    return segmentation(job)


@router.delete(
    f"{BASE}/{{segmentation_id}}",
    status_code=204,
    responses=problems(404),
    summary="Cancel and purge a segmentation",
)
def delete_segmentation(container: Services, caller: Writer, slices: Slices, job_id: JobId) -> None:
    """Remove the segmentation, its results, and its input where nothing else needs it."""
    remove(container, job_id)
    slices.drop(job_id)
    container.audit.record(caller.actor, "delete", job_id)
