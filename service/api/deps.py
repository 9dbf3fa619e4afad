"""What routes ask for: the container, the caller, a job, and the audit row that goes with it."""

import re
from collections.abc import Callable
from typing import Annotated, Final

from fastapi import Depends, Path, Request

from ..container import Container
from ..domain import Job
from ..errors import NotFoundError
from .security import Caller, needs
from .slices import SliceCache

JOB_ID: Final = re.compile(r"[0-9a-f-]{32,36}")
ACTOR: Final = r"^[ -~]{1,64}$"  # a database may refuse other characters, such as NUL
JOB_PATH: Final = Path(
    description="The id of a segmentation.", examples=["0198f1d2c0de7a41b6f0a2c4e8d01357"]
)


def container_of(request: Request) -> Container:
    """The container that the application was built with."""
    container: Container = request.app.state.container
    return container


def slices_of(request: Request) -> SliceCache:
    """The decoded volumes of the last results that somebody looked at."""
    cache: SliceCache = request.app.state.slices
    return cache


Services = Annotated[Container, Depends(container_of)]
Slices = Annotated[SliceCache, Depends(slices_of)]
Reader = Annotated[Caller, Depends(needs("read"))]
Writer = Annotated[Caller, Depends(needs("write"))]
Admin = Annotated[Caller, Depends(needs("admin"))]


def checked_id(segmentation_id: Annotated[str, JOB_PATH]) -> str:
    """An id of the right shape; anything else is not found rather than invalid."""
    if not JOB_ID.fullmatch(segmentation_id):
        raise NotFoundError("there is no segmentation of this id", code="job_not_found")
    return segmentation_id


JobId = Annotated[str, Depends(checked_id)]


def viewed(action: str) -> Callable[..., Job]:
    """A dependency: the job, after an audit row says who did ``action`` with it."""

    def find(container: Services, caller: Reader, job_id: JobId) -> Job:
        job = container.jobs.require(job_id)
        container.audit.record(caller.actor, action, job.id)
        return job

    return find
