"""Following a job: waiting for its end, and its changes as server-sent events."""

import asyncio
from collections.abc import AsyncIterator, Callable
from time import monotonic
from typing import Final

from starlette.concurrency import run_in_threadpool

from ..container import Container
from ..domain import Job
from .schemas import progress

POLL_S: Final = 0.2
FIRST_POLL_S: Final = 0.02
PING_S: Final = 15.0


async def wait_for(container: Container, job: Job, seconds: float) -> Job:
    """The job when it has finished, or as it is after ``seconds``."""
    end, pause = monotonic() + seconds, FIRST_POLL_S
    while not job.status.finished and (left := end - monotonic()) > 0:
        await asyncio.sleep(min(pause, left))
        pause = min(2 * pause, POLL_S)
        found = await run_in_threadpool(container.jobs.get, job.id)
        if found is None:
            return job
        job = found
    return job


async def changes(
    container: Container, job: Job, stopping: Callable[[], bool]
) -> AsyncIterator[str]:
    """One ``progress`` event a change, the last one when the job has finished; then the end. A
    comment now and then keeps proxies from closing a quiet connection. ``stopping``: the server
    wants to go, and the stream ends early."""
    yield event(job)
    spoke = monotonic()
    while not (job.status.finished or stopping()):
        await asyncio.sleep(POLL_S)
        found = await run_in_threadpool(container.jobs.get, job.id)
        if found is None:
            yield "event: deleted\ndata: {}\n\n"
            return
        if found.revision != job.revision:
            job, spoke = found, monotonic()
            yield event(job)
        elif monotonic() - spoke > PING_S:
            spoke = monotonic()
            yield ": still here\n\n"


def event(job: Job) -> str:
    """One server-sent event; its id is the revision."""
    return f"event: progress\nid: {job.revision}\ndata: {progress(job).model_dump_json()}\n\n"
