"""Errors of the DICOM room. No message holds a UID, a name, a date or a client's file name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from model.errors import AqcfError, InputError

if TYPE_CHECKING:
    from .receipt import ReceiptLine


class DicomInputError(InputError):
    """What was uploaded holds no series that can be used, or not the one asked for.

    ``receipt``: one line per series looked at, and why not.
    """

    code = "no_usable_series"

    def __init__(
        self, message: str, *, code: str | None = None, receipt: tuple[ReceiptLine, ...] = ()
    ) -> None:
        super().__init__(message, code=code)
        self.receipt = receipt


class DicomTooLargeError(DicomInputError):
    """The images declare more voxels than are accepted."""

    code = "input_too_large"


def input_error(
    message: str, code: str | None, receipt: tuple[ReceiptLine, ...] = ()
) -> DicomInputError:
    """The error of a refused series, by its code."""
    kind = DicomTooLargeError if code == DicomTooLargeError.code else DicomInputError
    return kind(message, code=code, receipt=receipt)


class SegMismatchError(AqcfError):
    """The written SEG does not decode to the mask it was made from; it must not be handed out."""

    code = "seg_mismatch"
