"""A request's body, streamed to disk: never in memory, never above the limits.

Starlette's own form parser spools whatever is sent before a route sees it. This one counts while
it reads, and parses and writes off the event loop, a mebibyte at a time.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final, Protocol

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request

from ..container import Container
from ..errors import EmptyUploadError, UnsupportedMediaError, UploadTooLargeError
from ..settings import Settings
from ..uploads import Receiver, Upload, too_many_files
from .errors import BadMultipartError, UploadTimeoutError

PART: Final = b"files"
MULTIPART: Final = b"multipart/form-data"
RAW_TYPES: Final = (
    "application/zip",
    "application/dicom",
    "application/gzip",
    "application/octet-stream",
    "application/x-zip-compressed",
    "application/x-gzip",
    "application/x-nifti",
)
FRAMING: Final = 1024  # bytes that a multipart body may spend on the headers of one part
CHUNK: Final = 1024**2
SILENCE_S: Final = 60.0


class Sink(Protocol):
    """Takes the body in pieces."""

    def feed(self, data: bytes) -> None:
        """Write what ``data`` holds."""

    def finish(self) -> None:
        """Check that the body is complete, and close."""

    def close(self) -> None:
        """Release what is open, whatever happened."""


async def receive(
    request: Request, folder: Path, container: Container, *, silence_s: float = SILENCE_S
) -> Upload:
    """Stream the body of ``request`` into ``folder`` (which must exist; the caller removes it).

    Takes multipart/form-data with parts called ``files``, or one raw file. Raises
    ``UploadTooLargeError`` (``upload_too_large``, ``too_many_files``) and ``StorageFullError``
    while it reads, ``EmptyUploadError``, ``UnsupportedMediaError``, ``BadMultipartError`` or
    ``UploadTimeoutError`` after ``silence_s`` seconds without a byte.
    """
    settings = container.settings
    receiver = await run_in_threadpool(Receiver, folder, settings, container.artifacts)
    sink = _sink(request, receiver, settings)
    await pour(request, sink, settings, silence_s=silence_s)
    return _some(receiver.upload())


async def pour(
    request: Request, sink: Sink, settings: Settings, *, silence_s: float = SILENCE_S
) -> None:
    """Feed the body of ``request`` to ``sink``, off the event loop, and close it.

    Raises what ``sink`` raises, ``UploadTooLargeError``, ``UnsupportedMediaError`` for a content
    encoding, ``BadMultipartError``, ``UploadTimeoutError``.
    """
    limit = settings.max_upload_bytes + FRAMING * settings.max_files
    try:
        _check_declared(request, limit)
        async for block in _blocks(request, limit, silence_s):
            await run_in_threadpool(sink.feed, block)
        await run_in_threadpool(sink.finish)
    except FormParserError as error:
        raise BadMultipartError("the multipart body cannot be parsed") from error
    finally:
        await run_in_threadpool(sink.close)


def _check_declared(request: Request, limit: int) -> None:
    """Refuse by the headers alone, before a byte of the body is read."""
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > limit:
        raise _too_large(limit)
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise UnsupportedMediaError(
            "a Content-Encoding is not accepted; send the files as they are or as a zip"
        )


def _sink(request: Request, receiver: Receiver, settings: Settings) -> Sink:
    kind, options = parse_options_header(request.headers.get("content-type"))
    if kind == MULTIPART:
        return MultipartSink(options.get(b"boundary", b""), receiver, settings.max_files)
    if not kind or kind.decode("latin-1") in RAW_TYPES:
        return RawSink(receiver)
    raise UnsupportedMediaError(
        "send multipart/form-data with the part 'files', or a raw application/zip, "
        "application/dicom or application/gzip body"
    )


async def _blocks(request: Request, limit: int, silence_s: float) -> AsyncIterator[bytes]:
    """The body in blocks of about a mebibyte, counted against the limit as it arrives."""
    total, block = 0, bytearray()
    async for chunk in chunks(request, silence_s):
        total += len(chunk)
        if total > limit:
            raise _too_large(limit)
        block += chunk
        if len(block) >= CHUNK:
            yield bytes(block)
            block.clear()
    if block:
        yield bytes(block)


async def chunks(request: Request, silence_s: float = SILENCE_S) -> AsyncIterator[bytes]:
    """The body as it comes. Raises ``UploadTimeoutError`` and, where the caller hangs up,
    ``BadMultipartError``."""
    stream = aiter(request.stream())
    while True:
        try:
            async with asyncio.timeout(silence_s):
                chunk = await anext(stream)
        except StopAsyncIteration:
            return
        except TimeoutError as error:
            raise UploadTimeoutError(f"nothing arrived for {silence_s:g} s") from error
        except ClientDisconnect as error:
            raise BadMultipartError("the connection broke during the upload") from error
        yield chunk


def _too_large(limit: int) -> UploadTooLargeError:
    return UploadTooLargeError(f"the upload is larger than {limit // 1024**2} MiB")


def _some(upload: Upload) -> Upload:
    if not any(path.stat().st_size for path in upload.paths):
        raise EmptyUploadError("the upload holds no data")
    return upload


class RawSink:
    """The body is one file."""

    def __init__(self, receiver: Receiver) -> None:
        self._stack = ExitStack()
        self._write = self._stack.enter_context(receiver.part())

    def feed(self, data: bytes) -> None:
        self._write(data)

    def finish(self) -> None:
        self._stack.close()

    def close(self) -> None:
        self._stack.close()


class MultipartSink:
    """The body is multipart/form-data; each part called ``files`` is a file."""

    def __init__(self, boundary: bytes, receiver: Receiver, max_parts: int) -> None:
        if not boundary:
            raise BadMultipartError("the Content-Type names no multipart boundary")
        self._receiver, self._max_parts, self._parts = receiver, max_parts, 0
        self._stack = ExitStack()
        self._write: Callable[[bytes], None] | None = None
        self._field, self._value, self._disposition = bytearray(), bytearray(), b""
        self._ended = False
        self._parser = _parser(boundary, self)

    def feed(self, data: bytes) -> None:
        self._parser.write(data)

    def finish(self) -> None:
        self._parser.finalize()
        if not self._ended:
            raise BadMultipartError("the multipart body ends too early")

    def close(self) -> None:
        self._stack.close()

    def on_part_begin(self) -> None:
        self._disposition = b""
        self._parts += 1
        if self._parts > self._max_parts:
            raise too_many_files(self._max_parts)

    def on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._field += data[start:end]

    def on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def on_header_end(self) -> None:
        if self._field.lower() == b"content-disposition":
            self._disposition = bytes(self._value)
        self._field.clear()
        self._value.clear()

    def on_headers_finished(self) -> None:
        _, options = parse_options_header(self._disposition.decode("latin-1"))
        if options.get(b"name") != PART:
            raise BadMultipartError(
                "the multipart body has a part that is not called 'files'; "
                "options go into the query"
            )
        name = options.get(b"filename")
        part = self._receiver.part(None if name is None else name.decode("latin-1"))
        self._write = self._stack.enter_context(part)

    def on_part_data(self, data: bytes, start: int, end: int) -> None:
        if self._write is not None:
            self._write(data[start:end])

    def on_part_end(self) -> None:
        self._stack.close()
        self._write = None

    def on_end(self) -> None:
        self._ended = True


CALLBACKS: Final = (
    "on_part_begin",
    "on_header_field",
    "on_header_value",
    "on_header_end",
    "on_headers_finished",
    "on_part_data",
    "on_part_end",
    "on_end",
)


def _parser(boundary: bytes, sink: MultipartSink) -> MultipartParser:
    marks: Any = {name: getattr(sink, name) for name in CALLBACKS}
    try:
        return MultipartParser(boundary, marks)
    except FormParserError as error:
        raise BadMultipartError("the multipart boundary is not valid") from error
