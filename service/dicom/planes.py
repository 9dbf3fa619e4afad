"""Planes: the one shape in which single-frame files and frames of multi-frame files are handled."""

import math
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias, TypeVar

from pydicom.dataset import Dataset

from .diffusion import private_b_value
from .filebytes import PixelSpan
from .values import floats, has, integer, items, number, raw, text, texts

Vector: TypeAlias = tuple[float, ...]
Sources: TypeAlias = tuple[Dataset, ...]
_T = TypeVar("_T")

# In the order in which they are tried to tell planes at one position apart.
SPLITTERS = (
    "TemporalPositionIdentifier",
    "TemporalPositionIndex",
    "TemporalPositionTimeOffset",
    "StackID",
    "EchoNumbers",
    "EchoTime",
    "EffectiveEchoTime",
    "ComplexImageComponent",
    "DiffusionBValue",
    "DiffusionGradientOrientation",
    "InversionTime",
    "InversionTimes",
    "TriggerTime",
    "NominalCardiacTriggerDelayTime",
    "ContrastBolusAgentPhase",
    "AcquisitionNumber",
    "SequenceName",
    "SeriesDescription",
    "AcquisitionTime",
    "AcquisitionDateTime",
    "FrameAcquisitionDateTime",
    "ContentTime",
    "ConvolutionKernel",
)
INSTANCE = "multi-frame instance"  # the last thing tried: files that are stacks of their own
PLANE_TAGS = (
    "ImagePositionPatient",
    "ImageOrientationPatient",
    "PixelSpacing",
    "SliceThickness",
    "ImageType",
    "RescaleSlope",
    "RescaleIntercept",
    "InstanceNumber",
    *SPLITTERS,
)
SHARED = "SharedFunctionalGroupsSequence"
PER_FRAME = "PerFrameFunctionalGroupsSequence"


@dataclass(frozen=True)
class Concatenation:
    """One multi-frame image cut into several instances (PS3.3 C.7.6.16.2.2.4). ``offset``: frames
    before this part's first, ``None`` where the header does not say; ``total``: of parts."""

    uid: str
    number: int
    total: int | None
    offset: int | None


@dataclass(frozen=True)
class SourceFile:
    """What one image file declares; pixels stay on disk.

    ``bits``: allocated, stored, high bit. ``padding``: Pixel Padding Value and Range Limit.
    ``owner``: Patient ID and study instance UID, under which results will be filed.
    """

    path: Path
    syntax: str
    little_endian: bool
    size: int
    pixels: PixelSpan | None
    sop_class_uid: str
    sop_instance_uid: str
    rows: int
    columns: int
    frames: int
    multi_frame: bool
    bits: tuple[int, int, int]
    signed: bool
    photometric: str
    samples: int
    padding: tuple[int, int] | None
    owner: tuple[str, str] = field(default=("", ""), repr=False)
    concatenation: Concatenation | None = None


@dataclass(frozen=True)
class Plane:
    """One image plane. ``frame``: 1-based, ``None`` in a single-frame file. Positions in LPS mm;
    ``pixel_spacing``: (between rows, between columns); ``rescale``: slope, intercept."""

    file: SourceFile
    frame: int | None
    position: Vector | None
    orientation: Vector | None
    pixel_spacing: Vector | None
    thickness: float | None
    image_type: tuple[str, ...]
    rescale: tuple[float, float]
    number: int
    splitters: Mapping[str, Hashable] = field(default_factory=dict)


def planes_of(file: SourceFile, dataset: Dataset) -> tuple[Plane, ...]:
    """The planes of a file; see ``Plane``. An enhanced file has one for each frame that its
    per-frame functional groups describe."""
    if not file.multi_frame:
        return (_plane(file, None, (dataset,)),)
    shared = items(dataset, SHARED)
    shared_groups = _groups(shared[0]) if shared else ()
    per_frame = items(dataset, PER_FRAME)[: file.frames]
    return tuple(
        _plane(file, frame, (*_groups(item), *shared_groups, dataset))
        for frame, item in enumerate(per_frame, start=1)
    )


def _groups(item: Dataset) -> tuple[Dataset, ...]:
    """The macros of a functional groups item, private ones left out."""
    keywords = (element.keyword for element in item if element.VR == "SQ")
    return tuple(macro for keyword in keywords if keyword for macro in items(item, keyword)[:1])


def _plane(file: SourceFile, frame: int | None, sources: tuple[Dataset, ...]) -> Plane:
    slope = _first(number, sources, "RescaleSlope")
    intercept = _first(number, sources, "RescaleIntercept")
    return Plane(
        file=file,
        frame=frame,
        position=_vector(sources, "ImagePositionPatient", 3),
        orientation=_vector(sources, "ImageOrientationPatient", 6),
        pixel_spacing=_vector(sources, "PixelSpacing", 2),
        thickness=_first(number, sources, "SliceThickness"),
        image_type=_image_type(sources),
        rescale=(1.0 if slope is None else slope, 0.0 if intercept is None else intercept),
        number=_number(file, frame, sources),
        splitters=_splitters(sources) | _instance(file, frame, sources),
    )


def _number(file: SourceFile, frame: int | None, sources: Sources) -> int:
    """The frame of the whole image, or the instance number."""
    if frame is None:
        return _first(integer, sources, "InstanceNumber") or 0
    part = file.concatenation
    return frame + (part.offset or 0 if part else 0)


def _instance(file: SourceFile, frame: int | None, sources: Sources) -> dict[str, Hashable]:
    if frame is None:
        return {}
    whole = file.concatenation.uid if file.concatenation else file.sop_instance_uid
    return {INSTANCE: (float(_first(integer, sources[-1:], "InstanceNumber") or 0), whole)}


def _first(read: Callable[[Dataset, str], _T | None], sources: Sources, keyword: str) -> _T | None:
    found = (read(source, keyword) for source in sources if has(source, keyword))
    return next((value for value in found if value is not None), None)


def _vector(sources: Sources, keyword: str, count: int) -> Vector | None:
    found = (floats(source, keyword, count) for source in sources if has(source, keyword))
    return next((value for value in found if value is not None), None)


def _image_type(sources: Sources) -> tuple[str, ...]:
    for keyword in ("FrameType", "ImageType"):
        for source in sources:
            if found := texts(source, keyword):
                return found
    return ()


def _splitters(sources: Sources) -> dict[str, Hashable]:
    found: dict[str, Hashable] = {}
    for keyword in SPLITTERS:
        value = next((text(source, keyword) for source in sources if has(source, keyword)), "")
        if value:
            found[keyword] = _comparable(value)
    if "DiffusionBValue" not in found and (private := private_b_value(sources[-1])) is not None:
        found["DiffusionBValue"] = _comparable(str(private))
    indices = _first(raw, sources, "DimensionIndexValues") or ()
    for axis, index in enumerate(indices if hasattr(indices, "__iter__") else (), start=1):
        found[f"dimension {axis}"] = _comparable(str(index))
    return found


def _comparable(value: str) -> tuple[float, str]:
    """Sorts numbers as numbers and everything else as text."""
    try:
        return float(value.strip("[]")), ""  # one value of several is written as a list
    except ValueError:
        return math.inf, value
