"""Planes: the one shape in which single-frame files and frames of multi-frame files are handled."""

import math
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias, TypeVar

from pydicom.dataset import Dataset

from .filebytes import PixelSpan
from .values import floats, integer, items, number, raw, text, texts

Vector: TypeAlias = tuple[float, ...]
Sources: TypeAlias = tuple[Dataset, ...]
_T = TypeVar("_T")

# In the order in which they are tried to tell planes at one position apart.
SPLITTERS = (
    "TemporalPositionIdentifier",
    "TemporalPositionIndex",
    "StackID",
    "EchoNumbers",
    "EchoTime",
    "EffectiveEchoTime",
    "ComplexImageComponent",
    "DiffusionBValue",
    "InversionTime",
    "TriggerTime",
    "AcquisitionNumber",
    "AcquisitionTime",
    "FrameAcquisitionDateTime",
    "ContentTime",
    "ConvolutionKernel",
)
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
class SourceFile:
    """What one image file declares; pixels stay on disk.

    ``bits``: allocated, stored, high bit. ``padding``: Pixel Padding Value and Range Limit.
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
        number=frame or _first(integer, sources, "InstanceNumber") or 0,
        splitters=_splitters(sources),
    )


def _first(read: Callable[[Dataset, str], _T | None], sources: Sources, keyword: str) -> _T | None:
    found = (read(source, keyword) for source in sources if keyword in source)
    return next((value for value in found if value is not None), None)


def _vector(sources: Sources, keyword: str, count: int) -> Vector | None:
    found = (floats(source, keyword, count) for source in sources if keyword in source)
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
        value = next((text(source, keyword) for source in sources if keyword in source), "")
        if value:
            found[keyword] = _comparable(value)
    indices = _first(raw, sources, "DimensionIndexValues") or ()
    for axis, index in enumerate(indices if hasattr(indices, "__iter__") else (), start=1):
        found[f"dimension {axis}"] = _comparable(str(index))
    return found


def _comparable(value: str) -> tuple[float, str]:
    """Sorts numbers as numbers and everything else as text."""
    try:
        return float(value), ""
    except ValueError:
        return math.inf, value
