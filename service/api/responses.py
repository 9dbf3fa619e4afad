"""How answers look in the OpenAPI document, and files as answers."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Final

from fastapi.responses import StreamingResponse

from ..container import Container
from ..domain import MEDIA_TYPES, ArtifactName, Job
from ..storage.store import no_artifact
from .schemas import Problem

CHUNK: Final = 256 * 1024  # bytes
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


@contextmanager
def deletion_told(container: Container, job: Job) -> Iterator[None]:
    """A segmentation may be deleted while its files are read: it is not found then."""
    try:
        yield
    except FileNotFoundError:
        container.jobs.require(job.id)
        raise


class WholeFile(StreamingResponse):
    """A result file under a neutral name. Always whole: byte ranges are not offered, and it is
    opened at once, so that it is sent to its end even if it is deleted meanwhile.

    Raises ``NotFoundError`` (``artifact_not_found``).
    """

    def __init__(self, path: Path, job: Job, name: ArtifactName) -> None:
        try:
            stream = path.open("rb")
        except FileNotFoundError as error:
            raise no_artifact(name) from error
        headers = {
            "Content-Length": str(os.fstat(stream.fileno()).st_size),
            "Content-Disposition": f'attachment; filename="{job.id[:8]}-{name.value}"',
        }
        if (artifact := job.artifact(name)) is not None:
            headers["ETag"] = f'"{artifact.sha256}"'
        super().__init__(_chunks(stream), headers=headers, media_type=MEDIA_TYPES[name])


def _chunks(stream: BinaryIO) -> Iterator[bytes]:
    with stream:
        while chunk := stream.read(CHUNK):
            yield chunk
