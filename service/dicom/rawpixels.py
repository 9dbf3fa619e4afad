"""Stored pixel values of one file: native ones straight from the bytes, others by pydicom's
decoders."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.pixels.decoders.base import get_decoder
from pydicom.uid import UID

from .codestream import declared_size
from .filebytes import FileBytes, pixel_bytes
from .planes import Plane, SourceFile

Stored = NDArray[np.integer]


class UndecodableError(Exception):
    """The decoder refused the pixels, or they do not have the declared size."""


@dataclass(frozen=True)
class FileReader:
    """Reads frames of one file; opened once for all of them."""

    file: SourceFile
    data: FileBytes

    @classmethod
    def open(cls, file: SourceFile) -> "FileReader":
        return cls(file, pixel_bytes(file.path))

    def stored(self, frame: int | None) -> Stored:
        """Stored values of a frame (1-based, ``None`` in a single-frame file), ``(rows, columns)``,
        unused high bits removed. Raises ``UndecodableError``."""
        values = self._native(frame) if self.native else self._decoded(frame)
        return used_bits(values, self.file)

    def raw(self, frame: int | None) -> bytes:
        """The bytes as they are stored: of the frame where they are native, else of the file."""
        span = self.file.pixels
        if span is None:
            return b""
        if not self.native:
            return bytes(self.data[span.start :])
        start, size = self._extent(frame)
        return bytes(self.data[start : start + size])

    @property
    def native(self) -> bool:
        return is_native(self.file)

    def every(self) -> Iterator[Stored]:
        """Stored values of all frames of a compressed file in one pass, see ``stored``."""
        value = self.raw(None)
        self._check_declared(value)
        with decoding():
            decoder = get_decoder(UID(self.file.syntax))
            for values, _ in decoder.iter_array(value, **self._options()):
                yield used_bits(self._checked(values), self.file)

    def _extent(self, frame: int | None) -> tuple[int, int]:
        file = self.file
        size = file.rows * file.columns * file.bits[0] // 8
        start = file.pixels.start if file.pixels else 0
        return start + (frame - 1 if frame else 0) * size, size

    def _native(self, frame: int | None) -> Stored:
        file = self.file
        start, size = self._extent(frame)
        if start + size > len(self.data):
            raise UndecodableError
        order = "<" if file.little_endian else ">"
        kind = np.dtype(f"{order}{'i' if file.signed else 'u'}{file.bits[0] // 8}")
        flat = np.frombuffer(self.data, kind, file.rows * file.columns, start)
        values = flat.reshape(file.rows, file.columns)
        return values.astype(kind.newbyteorder("="), copy=False)

    def _decoded(self, frame: int | None) -> Stored:
        value = self.raw(frame)
        self._check_declared(value)
        with decoding():
            decoder = get_decoder(UID(self.file.syntax))
            values, _ = decoder.as_array(value, index=(frame or 1) - 1, **self._options())
        return self._checked(values)

    def _check_declared(self, value: bytes) -> None:
        """The stream must not declare another size than the header, before it is decoded."""
        size = declared_size(value, self.file.syntax)
        if size is not None and size != (self.file.rows, self.file.columns):
            raise UndecodableError

    def _checked(self, values: NDArray[Any]) -> Stored:
        if values.shape != (self.file.rows, self.file.columns):
            raise UndecodableError
        return np.asarray(values)

    def _options(self) -> dict[str, Any]:
        """What pydicom's decoders need to know."""
        file = self.file
        return {
            "rows": file.rows,
            "columns": file.columns,
            "bits_allocated": file.bits[0],
            "bits_stored": file.bits[1],
            "number_of_frames": file.frames,
            "photometric_interpretation": file.photometric,
            "pixel_keyword": "PixelData",
            "pixel_representation": int(file.signed),
            "samples_per_pixel": 1,
        }


@contextmanager
def decoding() -> Iterator[None]:
    """Every codec raises its own error; one in Rust panics, which is no ``Exception`` at all."""
    try:
        yield
    except (UndecodableError, GeneratorExit):
        raise
    except BaseException as error:
        if isinstance(error, Exception) or type(error).__name__ == "PanicException":
            raise UndecodableError from error
        raise


def is_native(file: SourceFile) -> bool:
    """Whether the pixels are stored uncompressed."""
    return not UID(file.syntax).is_encapsulated


def used_bits(values: Stored, file: SourceFile) -> Stored:
    """Drop what lies outside BitsStored (overlays, garbage) and extend the sign."""
    allocated, stored, high = file.bits
    if stored == allocated:
        return values
    shifted: Stored = (values << (allocated - 1 - high)) >> (allocated - stored)
    return shifted


def raw_plane(plane: Plane) -> bytes:
    """See ``FileReader.raw``."""
    return FileReader.open(plane.file).raw(plane.frame)


def stored_plane(plane: Plane) -> Stored:
    """See ``FileReader.stored``."""
    return FileReader.open(plane.file).stored(plane.frame)
