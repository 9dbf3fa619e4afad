"""How answers look in the OpenAPI document, and files as answers."""

from pathlib import Path
from typing import Any, Final

from fastapi.responses import FileResponse
from starlette.types import Receive, Scope, Send

from ..domain import MEDIA_TYPES, ArtifactName, Job
from .schemas import Problem

Responses = dict[int | str, dict[str, Any]]

TEXTS: Final = {
    400: "The request cannot be understood, or the upload is empty.",
    401: "No API key, or none that is known.",
    403: "The key's scopes, or the page's origin, do not allow this.",
    404: "There is nothing of this id.",
    408: "The upload stalled.",
    409: "The state of the segmentation does not allow this.",
    413: "The upload is too large, or declares too much.",
    415: "Neither DICOM, nor a zip of DICOM, nor NIfTI.",
    422: "A parameter or the images cannot be used; `receipt` says why, per series.",
    429: "The queue is full; try again after `Retry-After` seconds.",
    503: "No model is ready, or the database does not answer; try again later.",
    507: "No room for another upload.",
}


def problems(*statuses: int) -> Responses:
    """Problem responses for a route that asks for a key; 401, 403 and 503 are in each."""
    return {
        status: {"model": Problem, "description": TEXTS[status]}
        for status in sorted({401, 403, 503, *statuses})
    }


def binary(media_type: str, description: str) -> Responses:
    """A 200 with a body of bytes."""
    schema = {"type": "string", "format": "binary"}
    return {200: {"description": description, "content": {media_type: {"schema": schema}}}}


class WholeFile(FileResponse):
    """A result file under a neutral name. Always whole: byte ranges are not offered."""

    def __init__(self, path: Path, job: Job, name: ArtifactName) -> None:
        super().__init__(path, media_type=MEDIA_TYPES[name], filename=f"{job.id[:8]}-{name.value}")
        if (artifact := job.artifact(name)) is not None:
            self.headers["ETag"] = f'"{artifact.sha256}"'
        del self.headers["accept-ranges"]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = [pair for pair in scope["headers"] if pair[0] not in (b"range", b"if-range")]
        await super().__call__({**scope, "headers": headers}, receive, send)
