"""What is sent, and what a node says of each object."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TypeAlias

from pydicom import dcmread

Alive: TypeAlias = Callable[[], None]
"""Called between objects; raises when the sender has to stop."""

IDENTIFYING = ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID")
OUT_OF_RESOURCES = range(0xA700, 0xA800)
WARNING = range(0xB000, 0xC000)
RESOURCE_LIMIT = 0x0213
PROCESSING_FAILURE = 0x0110
DUPLICATE_INSTANCE = 0x0111
ATTRIBUTE_LIST_ERROR = 0x0107
NOT_AUTHORISED = 0x0124


@dataclass(frozen=True)
class DicomObject:
    """A file in DICOM's file format; the UIDs are patient data."""

    path: Path
    sop_class: str
    sop_instance: str
    study: str
    series: str
    syntax: str


class Fate(StrEnum):
    """``busy``: the same may work later. ``unclear``: a failure without a reason, which may pass or
    not. ``refused``: this object will not be taken."""

    STORED = "stored"
    BUSY = "busy"
    UNCLEAR = "unclear"
    REFUSED = "refused"


@dataclass(frozen=True)
class ObjectResult:
    """``status``: of C-STORE (PS3.4 B.2.3), or the failure or warning reason of STOW-RS (PS3.18
    10.5.3) in the same numbers. ``note``: what a person should know."""

    object: DicomObject
    fate: Fate
    status: int | None = None
    note: str | None = None


def read_objects(paths: Iterable[Path]) -> tuple[DicomObject, ...]:
    """The headers that identify each file."""
    return tuple(_read(path) for path in paths)


def result_of(sent: DicomObject, status: int) -> ObjectResult:
    """What a status means for the object it was given for."""
    fate = fate_of(status)
    if status == 0:
        return ObjectResult(sent, fate, status)
    if status == DUPLICATE_INSTANCE:
        return ObjectResult(sent, fate, status, "the destination had the object already")
    if fate is Fate.STORED:
        return ObjectResult(sent, fate, status, f"stored with a warning ({status:#06x})")
    return ObjectResult(sent, fate, status, f"status {status:#06x}")


def fate_of(status: int) -> Fate:
    """Success and warnings are stored; so is what is there already."""
    if status in (0, ATTRIBUTE_LIST_ERROR, DUPLICATE_INSTANCE) or status in WARNING:
        return Fate.STORED
    if status in OUT_OF_RESOURCES or status == RESOURCE_LIMIT:
        return Fate.BUSY
    return Fate.UNCLEAR if status == PROCESSING_FAILURE else Fate.REFUSED


def _read(path: Path) -> DicomObject:
    found = dcmread(path, specific_tags=list(IDENTIFYING), stop_before_pixels=True)
    sop_class, sop_instance, study, series = (str(found[keyword].value) for keyword in IDENTIFYING)
    syntax = str(found.file_meta.TransferSyntaxUID)
    return DicomObject(path, sop_class, sop_instance, study, series, syntax)
