"""Instances in by DICOMweb: POST /dicomweb/studies (STOW-RS, PS3.18 10.5)."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path as FilePath
from typing import Annotated, Any, Final

from fastapi import APIRouter, Path, Request, Response
from python_multipart.multipart import parse_options_header
from starlette.concurrency import run_in_threadpool
from starlette.responses import JSONResponse

from ...arrive import Claim, InstanceError, MismatchedInstanceError, Reception
from ...container import Container
from ...dicom.heads import Head, read_head
from ...domain import Origin
from ...errors import EmptyUploadError, StorageFullError, UnsupportedMediaError
from ...pacs.incoming import BrokenOffError, Incoming, Limits, Parts, Single
from ...storage.artifacts import full_disk_told
from ..arrival_schemas import STUDIES, store_response
from ..deps import Services, Writer
from ..errors import BadMultipartError
from ..receive import pour
from ..responses import Responses, problems

router = APIRouter(tags=["arrivals"])

DICOM, DICOM_JSON = "application/dicom", "application/dicom+json"
OUT_OF_RESOURCES, MISMATCH, CANNOT_UNDERSTAND = 0xA700, 0xA900, 0xC000  # PS3.4 B.2.3
BINARY: Final = {"schema": {"type": "string", "format": "binary"}}
BODY: Final[dict[str, Any]] = {
    "requestBody": {
        "required": True,
        "description": "Instances of any number of series, a part each.",
        "content": {'multipart/related; type="application/dicom"': BINARY, DICOM: BINARY},
    }
}
ANSWER: Final = {"content": {DICOM_JSON: {"schema": {"type": "object"}}}}
STORED: Final[Responses] = {
    200: {"description": "All instances are stored.", **ANSWER},
    202: {"description": "Some instances are stored; the answer says which are not.", **ANSWER},
    409: {"description": "No instance is stored; the answer says why.", **ANSWER},
}
RESPONSES: Final = STORED | problems(400, 408, 413, 415, 507)
OF_STUDY: Final = RESPONSES | problems(422)
STUDY: Final = Path(max_length=64, description="StudyInstanceUID that all instances must have.")


@router.post(
    STUDIES,
    responses=RESPONSES,
    openapi_extra=BODY,
    response_class=Response,
    summary="Store instances",
)
async def store_instances(request: Request, container: Services, caller: Writer) -> Response:
    """Take instances in as the DICOM listener does: when a study is complete, the site's rules
    say what is segmented. The answer is a Store Instances Response as DICOM JSON."""
    return await _store(request, container, caller.actor, None)


@router.post(
    STUDIES + "/{study_uid}",
    responses=OF_STUDY,
    openapi_extra=BODY,
    response_class=Response,
    summary="Store instances of one study",
)
async def store_study_instances(
    request: Request, container: Services, caller: Writer, study_uid: Annotated[str, STUDY]
) -> Response:
    """The same, for instances of this study only."""
    return await _store(request, container, caller.actor, study_uid)


async def _store(
    request: Request, container: Container, actor: str, study_uid: str | None
) -> Response:
    boundary = _boundary(request)
    delivery = await run_in_threadpool(_Delivery, container, actor, study_uid, boundary)
    await pour(request, delivery, container.settings)
    return delivery.answer()


def _boundary(request: Request) -> bytes | None:
    """Of a multipart body; ``None`` where the body is one instance."""
    kind, options = parse_options_header(request.headers.get("content-type"))
    if kind == DICOM.encode():
        return None
    media = options.get(b"type", DICOM.encode()).lower()
    if kind != b"multipart/related" or media != DICOM.encode():
        raise UnsupportedMediaError(
            'send multipart/related; type="application/dicom", or one application/dicom body'
        )
    return options.get(b"boundary", b"")


@contextmanager
def _broken_off_told() -> Iterator[None]:
    try:
        yield
    except BrokenOffError as error:
        raise BadMultipartError("the body is no multipart/related, or breaks off") from error


class _Delivery:
    """A request's instances, each stored as soon as it is whole."""

    def __init__(
        self, container: Container, actor: str, study_uid: str | None, boundary: bytes | None
    ) -> None:
        settings = container.settings
        container.artifacts.require_room(settings.min_free_bytes)
        self._claim = Claim(study_uid=study_uid)
        self._stored: list[Head] = []
        self._failed: list[tuple[str, str, int]] = []
        self._unreadable: list[int] = []
        self._stack = ExitStack()
        reception = Reception(container, Origin.STOW, actor)
        self._reception = self._stack.enter_context(reception)
        folder = self._stack.enter_context(reception.files.incoming())
        limits = Limits(settings.max_upload_bytes, settings.max_files)
        self._incoming = Incoming(folder, limits, self._taken, lambda: False)
        with _broken_off_told():
            self._body = (
                Single(self._incoming) if boundary is None else Parts(boundary, self._incoming)
            )

    def feed(self, data: bytes) -> None:
        with _broken_off_told(), full_disk_told():
            self._body.feed(data)

    def finish(self) -> None:
        with _broken_off_told(), full_disk_told():
            self._body.finish()

    def close(self) -> None:
        self._incoming.close()
        self._stack.close()

    def answer(self) -> Response:
        refused = len(self._failed) + len(self._unreadable)
        if not self._stored and not refused:
            raise EmptyUploadError("the request holds no instance")
        pairs = [(head.sop_class_uid, head.sop_instance_uid) for head in self._stored]
        body = store_response(pairs, self._failed, self._unreadable)
        status = 200 if not refused else 202 if self._stored else 409
        return JSONResponse(body, status, media_type=DICOM_JSON)

    def _taken(self, file: FilePath) -> None:
        try:
            self._stored.append(self._reception.take(file, self._claim))
        except MismatchedInstanceError:
            self._fail(file, MISMATCH)
        except InstanceError:
            self._unreadable.append(CANNOT_UNDERSTAND)
        except StorageFullError:
            self._fail(file, OUT_OF_RESOURCES)
        finally:
            file.unlink()

    def _fail(self, file: FilePath, reason: int) -> None:
        head = read_head(file)
        self._failed.append((head.sop_class_uid, head.sop_instance_uid, reason))
