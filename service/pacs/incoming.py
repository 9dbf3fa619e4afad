"""Instances that come from a node, written to numbered files under limits."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser

from ..errors import UploadTooLargeError

Taken = Callable[[Path], None]


class BrokenOffError(Exception):
    """What came is not the whole of it."""


class StoppedError(Exception):
    """The process stops; whoever asked for the instances asks again later."""


@dataclass(frozen=True)
class Limits:
    """Of everything that is fetched together."""

    max_bytes: int
    max_files: int


class Incoming:
    """One file after the other: ``begin``, ``write``, ``end``.

    ``taken`` is called with each file when it is whole, and may move it away; ``stopping`` is
    asked before each. ``begin`` raises ``StoppedError``, it and ``write`` ``UploadTooLargeError``.
    ``close`` removes a file that is not whole. ``files``: how many are.
    """

    def __init__(
        self, folder: Path, limits: Limits, taken: Taken, stopping: Callable[[], bool]
    ) -> None:
        self._folder, self._limits = folder, limits
        self._taken, self._stopping = taken, stopping
        self._stream: BinaryIO | None = None
        self._bytes = 0
        self.files = 0

    def begin(self) -> None:
        if self._stopping():
            raise StoppedError
        if self.files >= self._limits.max_files:
            raise UploadTooLargeError(
                f"there are more than {self._limits.max_files} instances", code="too_many_files"
            )
        self._stream = self._path.open("wb")

    def write(self, data: bytes) -> None:
        self._bytes += len(data)
        if self._bytes > self._limits.max_bytes:
            raise UploadTooLargeError(
                f"the instances are larger than {self._limits.max_bytes // 1024**2} MiB"
            )
        if self._stream is not None:
            self._stream.write(data)

    def end(self) -> None:
        if self._stream is None:
            return
        self._stream.close()
        self._stream, path = None, self._path
        self.files += 1
        self._taken(path)

    def close(self) -> None:
        if self._stream is not None:
            self._stream.close()
            self._stream = None
            self._path.unlink()

    @property
    def _path(self) -> Path:
        return self._folder / f"instance-{self.files + 1:06d}"


class Parts:
    """A body of multipart/related (PS3.18 8.7.1): each part becomes a file.

    ``feed`` raises ``BrokenOffError`` for what is no such body, ``finish`` for one that ends too
    early.
    """

    def __init__(self, boundary: bytes, incoming: Incoming) -> None:
        self._incoming = incoming
        self._ended = False
        callbacks: dict[str, Callable[..., Any]] = {
            "on_part_begin": incoming.begin,
            "on_part_data": lambda data, start, end: incoming.write(data[start:end]),
            "on_part_end": incoming.end,
            "on_end": self._end,
        }
        try:
            self._parser = MultipartParser(boundary, callbacks)  # type: ignore[arg-type]
        except FormParserError as error:
            raise BrokenOffError from error

    def feed(self, data: bytes) -> None:
        try:
            self._parser.write(data)
        except FormParserError as error:
            raise BrokenOffError from error

    def finish(self) -> None:
        if not self._ended:
            raise BrokenOffError

    def _end(self) -> None:
        self._ended = True


class Single:
    """A body that is one instance."""

    def __init__(self, incoming: Incoming) -> None:
        self._incoming = incoming
        incoming.begin()

    def feed(self, data: bytes) -> None:
        self._incoming.write(data)

    def finish(self) -> None:
        self._incoming.end()
