"""The data set of a C-STORE request on its way to disk: it is never whole in memory."""

import errno
from collections.abc import Callable
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

from model.errors import AqcfError

from ..arrive import InstanceError
from ..errors import StorageFullError, UploadTooLargeError

BUFFER_BYTES = 2**18
MEMORY_BYTES = 2**24  # of a data set that is no instance, such as a commitment report

Begin = Callable[[], tuple[Path, bytes] | None]
"""Asked before the first byte: the file to write and what comes before the data set, or ``None``
where the data set belongs into memory. Raises ``InstanceError``, ``StorageFullError``."""


class Spool(BytesIO):
    """A ``BytesIO`` for pynetdicom, which writes fragments into it as they arrive.

    What goes wrong while it is written is kept for ``finish``: the thread that receives cannot
    answer the sender.
    """

    def __init__(self, begin: Begin, max_bytes: int) -> None:
        super().__init__()
        self._begin = begin
        self._left = max_bytes
        self._begun = False
        self._path: Path | None = None
        self._stream: BinaryIO | None = None
        self._error: Exception | None = None

    def write(self, data: Any) -> int:
        if self._error is None:
            try:
                self._write(data)
            except (AqcfError, OSError) as error:
                self._error = error
        return len(data)

    def finish(self) -> Path:
        """The whole file. Raises what went wrong: ``InstanceError``, ``UploadTooLargeError``,
        ``StorageFullError``, ``OSError``."""
        try:
            self._close()
        except OSError as error:
            self._error = self._error or error
        if self._error is not None:
            raise _told(self._error) from self._error
        if self._path is None:
            raise InstanceError("the request has no data set")
        return self._path

    def drop(self) -> None:
        """Remove what was written."""
        with suppress(OSError):
            self._close()
        if self._path is not None:
            self._path.unlink(missing_ok=True)

    def _write(self, data: Any) -> None:
        if not self._begun:
            self._start()
        self._left -= len(data)
        if self._left < 0:
            raise UploadTooLargeError("the instance is larger than is accepted")
        if self._stream is None:
            super().write(data)
        else:
            self._stream.write(data)

    def _start(self) -> None:
        self._begun = True
        begun = self._begin()
        if begun is None:
            self._left = MEMORY_BYTES
            return
        self._path, start = begun
        self._stream = self._path.open("wb", BUFFER_BYTES)
        self._stream.write(start)

    def _close(self) -> None:
        if self._stream is not None:
            self._stream.close()


def _told(error: Exception) -> Exception:
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return StorageFullError("the disk is full; try again later")
    return error
