"""One uploaded file, looked at once: what it is, and what is wrong with it."""

import re
from dataclasses import dataclass, field
from pathlib import Path

from pydicom.dataset import Dataset
from pydicom.tag import Tag
from pydicom.uid import AllTransferSyntaxes

from .diffusion import PRIVATE_TAGS
from .filebytes import NotDicomError, Parsed, TooLargeError, is_damage, parse
from .planes import (
    PER_FRAME,
    PLANE_TAGS,
    SHARED,
    Concatenation,
    Plane,
    SourceFile,
    planes_of,
)
from .truncation import is_truncated
from .values import has, integer, items, number, text, texts

FILE_TAGS = (
    "SpecificCharacterSet",
    "SOPClassUID",
    "SOPInstanceUID",
    "Modality",
    "PatientID",
    "StudyInstanceUID",
    "SeriesInstanceUID",
    "SeriesNumber",
    "SeriesDescription",
    "ProtocolName",
    "BodyPartExamined",
    "ScanningSequence",
    "MagneticFieldStrength",
    "SamplesPerPixel",
    "PhotometricInterpretation",
    "NumberOfFrames",
    "Rows",
    "Columns",
    "BitsAllocated",
    "BitsStored",
    "HighBit",
    "PixelRepresentation",
    "PixelPaddingValue",
    "PixelPaddingRangeLimit",
    "ConcatenationUID",
    "InConcatenationNumber",
    "InConcatenationTotalNumber",
    "ConcatenationFrameOffsetNumber",
)
TAGS = [*map(Tag, (*FILE_TAGS, *PLANE_TAGS, SHARED, PER_FRAME)), *PRIVATE_TAGS]
NOT_IMAGES = frozenset(
    {"SEG", "RTSTRUCT", "RTDOSE", "RTPLAN", "RTRECORD", "RTINTENT", "PLAN", "SR", "KO", "PR", "ANN",
     "REG", "FID", "DOC", "AU", "ECG", "HD", "EPS", "RWV", "SMR", "STAIN", "M3D", "POS"}
)  # fmt: skip
NOT_IMAGE_CLASSES = (
    "1.2.840.10008.1.3.10",  # media directory
    "1.2.840.10008.5.1.4.1.1.66",  # raw data, registration, fiducials, segmentation, surfaces
    "1.2.840.10008.5.1.4.1.1.88",  # structured reports
    "1.2.840.10008.5.1.4.1.1.11",  # presentation states
    "1.2.840.10008.5.1.4.1.1.104",  # encapsulated documents
    "1.2.840.10008.5.1.4.1.1.481",  # radiotherapy objects
    "1.2.840.10008.5.1.4.1.1.9",  # waveforms
    "1.2.840.10008.5.1.4.1.1.91",  # annotations
)
RT_IMAGE = "1.2.840.10008.5.1.4.1.1.481.1"
MODALITY_OF_CLASS = {
    "1.2.840.10008.5.1.4.1.1.2": "CT",
    "1.2.840.10008.5.1.4.1.1.4": "MR",
}
MULTI_FRAME_CLASSES = frozenset(
    {
        "1.2.840.10008.5.1.4.1.1.2.1",
        "1.2.840.10008.5.1.4.1.1.2.2",
        "1.2.840.10008.5.1.4.1.1.4.1",
        "1.2.840.10008.5.1.4.1.1.4.3",
        "1.2.840.10008.5.1.4.1.1.4.4",
    }
)
MAX_RESCALE = 1e9  # a slope or an intercept: 32-bit values times it are 32-bit floats still
SCOUTS = re.compile(r"\b(locali[sz]er|scout|survey|surview|topogram)\b", re.IGNORECASE)


@dataclass(frozen=True)
class SeriesFacts:
    """What a header says of its series. Client data: for the receipt and the ranking only.
    ``phase``: the contrast phase that it names, see ``phases``."""

    uid: str
    study_uid: str
    number: int
    modality: str
    description: str
    body_part: str
    field_strength: float | None
    gradient_echo: bool
    phase: str | None = None


@dataclass(frozen=True)
class FileRecord:
    """``facts`` is ``None`` where the file is no readable DICOM. ``problem``: a code."""

    facts: SeriesFacts | None = None
    problem: str | None = None
    file: SourceFile | None = None
    planes: tuple[Plane, ...] = field(default=())
    localizer: bool = False


def read_record(path: Path, max_voxels: int) -> FileRecord:
    """Look at a file. Never raises for what is in it: ``problem`` says what is wrong."""
    try:
        parsed = parse(path, TAGS)
        return _record(path, parsed, max_voxels)
    except NotDicomError:
        return FileRecord(problem="not_dicom")
    except (TooLargeError, MemoryError):
        return FileRecord(problem="input_too_large")
    except Exception as error:  # a corrupt header makes the parser raise nearly anything
        if not is_damage(error):
            raise
        return FileRecord(problem="invalid_dicom")


def _record(path: Path, parsed: Parsed, max_voxels: int) -> FileRecord:
    dataset = parsed.dataset
    if not any(has(dataset, keyword) for keyword in ("SOPClassUID", "Modality", "Rows")):
        begun = parsed.marked or len(dataset) > 0
        return FileRecord(problem="invalid_dicom" if begun else "not_dicom")
    file = _source_file(path, parsed)
    facts = _facts(dataset, file.sop_class_uid)
    problem = _problem(file, facts, dataset, max_voxels)
    planes = () if problem else planes_of(file, dataset)
    if not planes and not problem:
        problem = "invalid_geometry"
    if any(max(map(abs, plane.rescale)) > MAX_RESCALE for plane in planes):
        problem, planes = "unsupported_pixel_format", ()
    return FileRecord(facts, problem, file, planes, _is_localizer(facts, dataset))


def _source_file(path: Path, parsed: Parsed) -> SourceFile:
    dataset, meta = parsed.dataset, parsed.dataset.file_meta
    sop_class = text(dataset, "SOPClassUID") or text(meta, "MediaStorageSOPClassUID")
    allocated = integer(dataset, "BitsAllocated") or 0
    stored = integer(dataset, "BitsStored") or allocated
    high = integer(dataset, "HighBit")
    frames = integer(dataset, "NumberOfFrames") or 1
    return SourceFile(
        path=path,
        syntax=parsed.syntax,
        little_endian=parsed.little_endian,
        size=parsed.size,
        pixels=parsed.pixels,
        sop_class_uid=sop_class,
        sop_instance_uid=text(dataset, "SOPInstanceUID")
        or text(meta, "MediaStorageSOPInstanceUID"),
        rows=integer(dataset, "Rows") or 0,
        columns=integer(dataset, "Columns") or 0,
        frames=frames,
        multi_frame=frames > 1 or sop_class in MULTI_FRAME_CLASSES,
        bits=(allocated, stored, stored - 1 if high is None else high),
        signed=integer(dataset, "PixelRepresentation") == 1,
        photometric=text(dataset, "PhotometricInterpretation").upper(),
        samples=integer(dataset, "SamplesPerPixel") or 1,
        padding=_padding(dataset),
        owner=(text(dataset, "PatientID"), text(dataset, "StudyInstanceUID")),
        concatenation=_concatenation(dataset),
    )


def _concatenation(dataset: Dataset) -> Concatenation | None:
    uid = text(dataset, "ConcatenationUID")
    if not uid:
        return None
    return Concatenation(
        uid=uid,
        number=integer(dataset, "InConcatenationNumber") or 0,
        total=integer(dataset, "InConcatenationTotalNumber"),
        offset=integer(dataset, "ConcatenationFrameOffsetNumber"),
    )


def _padding(dataset: Dataset) -> tuple[int, int] | None:
    value = integer(dataset, "PixelPaddingValue")
    if value is None:
        return None
    limit = integer(dataset, "PixelPaddingRangeLimit")
    return (value, value) if limit is None else (min(value, limit), max(value, limit))


def _facts(dataset: Dataset, sop_class: str) -> SeriesFacts:
    family = next((m for c, m in MODALITY_OF_CLASS.items() if _below(sop_class, c)), "")
    description = text(dataset, "SeriesDescription") or text(dataset, "ProtocolName")
    return SeriesFacts(
        uid=text(dataset, "SeriesInstanceUID"),
        study_uid=text(dataset, "StudyInstanceUID"),
        number=integer(dataset, "SeriesNumber") or 0,
        modality=text(dataset, "Modality").upper() or family,
        description=description,
        body_part=text(dataset, "BodyPartExamined").upper(),
        field_strength=number(dataset, "MagneticFieldStrength"),
        gradient_echo="GR" in texts(dataset, "ScanningSequence"),
    )


def _problem(file: SourceFile, facts: SeriesFacts, dataset: Dataset, max_voxels: int) -> str | None:
    """The first thing that makes the file unusable, most telling first."""
    checks = (
        ("not_an_image", _is_no_image(file.sop_class_uid, facts.modality)),
        ("no_pixel_data", file.pixels is None or file.rows < 1 or file.columns < 1),
        ("colour_image", file.samples != 1 or not file.photometric.startswith("MONOCHROME")),
        ("input_too_large", file.rows * file.columns * file.frames > max_voxels),
        ("unsupported_pixel_format", not _supported(file)),
        ("truncated_pixel_data", is_truncated(file)),
        ("invalid_geometry", file.multi_frame and len(items(dataset, PER_FRAME)) < file.frames),
    )
    return next((code for code, found in checks if found), None)


def _is_no_image(sop_class: str, modality: str) -> bool:
    below = any(_below(sop_class, root) for root in NOT_IMAGE_CLASSES)
    return modality in NOT_IMAGES or (below and not _below(sop_class, RT_IMAGE))


def _supported(file: SourceFile) -> bool:
    allocated, stored, high = file.bits
    floating = file.pixels is not None and file.pixels.floating
    return (
        allocated in (8, 16, 32)
        and 1 <= stored <= allocated
        and stored - 1 <= high < allocated
        and file.frames > 0
        and file.syntax in AllTransferSyntaxes
        and not floating
    )


def _is_localizer(facts: SeriesFacts, dataset: Dataset) -> bool:
    return "LOCALIZER" in texts(dataset, "ImageType") or bool(SCOUTS.search(facts.description))


def _below(uid: str, root: str) -> bool:
    return uid == root or uid.startswith(root + ".")
