"""Source headers as highdicom accepts them: rebuilt from what is valid, never repaired in place.

An allow-list, not a filter: each copy holds the patient and study attributes that results must
share with their source, as far as they are valid, and the geometry that the gate accepted. So no
malformed header can lose a result.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime

from pydicom.dataset import Dataset
from pydicom.valuerep import DSfloat

from .filebytes import parse
from .planes import Plane
from .quiet import quiet
from .series import Series
from .uids import derived_uid, is_uid
from .values import floats, text

UTF_8 = "ISO_IR 192"
ORTHONORMAL_TOLERANCE = 1e-5
IMAGE_CLASSES = {"ct": "1.2.840.10008.5.1.4.1.1.2", "mr": "1.2.840.10008.5.1.4.1.1.4"}

# keyword -> VR. Type 2 attributes are written empty where the source has nothing valid.
TYPE_2 = {
    "PatientName": "PN",
    "PatientID": "LO",
    "PatientBirthDate": "DA",
    "PatientSex": "CS",
    "StudyDate": "DA",
    "StudyTime": "TM",
    "StudyID": "SH",
    "AccessionNumber": "SH",
    "ReferringPhysicianName": "PN",
}
TYPE_3 = {
    "IssuerOfPatientID": "LO",
    "OtherPatientNames": "PN",
    "EthnicGroup": "SH",
    "PatientAge": "AS",
    "PatientSize": "DS",
    "PatientWeight": "DS",
    "StudyDescription": "LO",
    "LongitudinalTemporalInformationModified": "CS",
}
TRIAL_REQUIRED = {"ClinicalTrialSponsorName": "LO", "ClinicalTrialProtocolID": "LO"}
TRIAL_SUBJECT = {"ClinicalTrialSubjectID": "LO", "ClinicalTrialSubjectReadingID": "LO"}
TRIAL_TYPE_2 = {
    "ClinicalTrialProtocolName": "LO",
    "ClinicalTrialSiteID": "LO",
    "ClinicalTrialSiteName": "LO",
}
DEIDENTIFIED = {"PatientIdentityRemoved": "CS", "DeidentificationMethod": "LO"}
COMPRESSION = (
    "LossyImageCompression",
    "LossyImageCompressionRatio",
    "LossyImageCompressionMethod",
)
UIDS = {
    "StudyInstanceUID": "source study",
    "SeriesInstanceUID": "source series",
    "FrameOfReferenceUID": "frame of reference",
}
WANTED = [
    "SpecificCharacterSet",
    *TYPE_2,
    *TYPE_3,
    *TRIAL_REQUIRED,
    *TRIAL_SUBJECT,
    *TRIAL_TYPE_2,
    *DEIDENTIFIED,
    *COMPRESSION,
    *UIDS,
]
ENUMERATED = {
    "PatientSex": {"M", "F", "O"},
    "PatientIdentityRemoved": {"YES", "NO"},
    "LongitudinalTemporalInformationModified": {"UNMODIFIED", "MODIFIED", "REMOVED"},
}
LENGTHS = {"SH": 16, "LO": 64}
NAME_GROUPS, NAME_COMPONENTS, NAME_LENGTH = 3, 5, 64
CONTROL = re.compile(r"[\x00-\x1f\x7f\\]")
PATTERNS = {
    "AS": re.compile(r"\d{3}[DWMY]"),
    "CS": re.compile(r"[A-Z0-9_ ]{1,16}"),
    "TM": re.compile(r"([01]\d|2[0-3])([0-5]\d([0-5]\d(\.\d{1,6})?)?)?"),
    "DS": re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?"),
}


@dataclass(frozen=True)
class Reference:
    """How a result names one source plane. ``frame``: of a multi-frame instance."""

    sop_class_uid: str
    sop_instance_uid: str
    frame: int | None


@dataclass(frozen=True)
class Sources:
    """What results are built from: one single-frame header per native slice, in the order of
    ``series.instances``, and how each is truly referred to. ``notes``: what was made up or
    dropped, without its value."""

    headers: tuple[Dataset, ...]
    references: tuple[Reference, ...]
    notes: tuple[str, ...]


def canonical_sources(series: Series, uid_key: str) -> Sources:
    """Headers for highdicom. ``uid_key``: from which missing UIDs are made up, always the same."""
    with quiet():
        common, notes = _common(series, uid_key)
    references = tuple(
        _reference(series, plane, uid_key, index) for index, plane in enumerate(series.instances)
    )
    headers = tuple(
        _header(common, series, index, reference) for index, reference in enumerate(references)
    )
    return Sources(headers, references, notes)


def _common(series: Series, uid_key: str) -> tuple[Dataset, tuple[str, ...]]:
    """What all slices share, and notes."""
    source = parse(series.instances[0].file.path, WANTED).dataset
    made: list[str] = []
    common = Dataset()
    common.SpecificCharacterSet = UTF_8
    for keyword, vr in TYPE_2.items():
        setattr(common, keyword, _valid(source, keyword, vr, made))
    for keyword, vr in TYPE_3.items():
        if value := _valid(source, keyword, vr, made):
            setattr(common, keyword, value)
    _add_group(common, source, DEIDENTIFIED, made)
    _add_trial(common, source, made)
    _add_compression(common, source)
    _add_uids(common, source, series, uid_key, made)
    _add_geometry(common, series)
    common.Modality = series.modality.upper()
    common.PositionReferenceIndicator = ""
    return common, tuple(made)


def _valid(source: Dataset, keyword: str, vr: str, made: list[str]) -> str:
    value = text(source, keyword)
    cleaned = clean(value, vr)
    if cleaned and keyword in ENUMERATED and cleaned not in ENUMERATED[keyword]:
        cleaned = ""
    if value and not cleaned:
        made.append(f"{keyword} is invalid in the source and left empty in the results")
    return cleaned


def clean(value: str, vr: str) -> str:
    """The value as its VR allows it, or empty."""
    value = CONTROL.sub(" ", value).strip()
    if vr == "PN":
        return _name(_encodable(value))
    if vr in LENGTHS:
        return _encodable(value)[: LENGTHS[vr]].strip()
    return value if value and _allowed(value, vr) else ""


def _allowed(value: str, vr: str) -> bool:
    if vr == "DA":
        return _is_date(value)
    longest = 16 if vr == "DS" else len(value)
    return len(value) <= longest and PATTERNS[vr].fullmatch(value) is not None


def _name(value: str) -> str:
    """At most three groups of five components (PS3.5 6.2.1)."""
    groups = value.split("=")[:NAME_GROUPS]
    cut = ("^".join(group.split("^")[:NAME_COMPONENTS])[:NAME_LENGTH] for group in groups)
    return "=".join(group.strip() for group in cut).strip(" =")


def _encodable(value: str) -> str:
    return value.encode("utf-8", "replace").decode("utf-8")


def _is_date(value: str) -> bool:
    try:
        datetime.strptime(value, "%Y%m%d")
    except ValueError:
        return False
    return len(value) == 8


def _add_group(
    common: Dataset, source: Dataset, keywords: Mapping[str, str], made: list[str]
) -> bool:
    """All of the attributes or none."""
    values = {keyword: _valid(source, keyword, vr, made) for keyword, vr in keywords.items()}
    if not all(values.values()):
        return False
    for keyword, value in values.items():
        setattr(common, keyword, value)
    return True


def _add_trial(common: Dataset, source: Dataset, made: list[str]) -> None:
    subject = {k: v for k, v in TRIAL_SUBJECT.items() if _valid(source, k, v, [])}
    if not subject or not _add_group(common, source, {**TRIAL_REQUIRED, **subject}, made):
        return
    for keyword, vr in TRIAL_TYPE_2.items():
        setattr(common, keyword, _valid(source, keyword, vr, made))


def _add_compression(common: Dataset, source: Dataset) -> None:
    """That the source was compressed with loss stays true of what is derived from it."""
    ratio = floats(source, "LossyImageCompressionRatio", 1)
    method = clean(text(source, "LossyImageCompressionMethod"), "CS")
    if text(source, "LossyImageCompression") == "01":
        common.LossyImageCompression = "01"
        if ratio and method:
            common.LossyImageCompressionRatio = ratio[0]
            common.LossyImageCompressionMethod = method


def _add_uids(
    common: Dataset, source: Dataset, series: Series, uid_key: str, made: list[str]
) -> None:
    for keyword, role in UIDS.items():
        value = text(source, keyword)
        if not is_uid(value):
            value = derived_uid(uid_key, role)
            made.append(f"{keyword} is missing or invalid in the source; one is made up")
        setattr(common, keyword, value)
    if any(not is_uid(plane.file.sop_instance_uid) for plane in series.instances):
        made.append("SOPInstanceUID is missing or invalid in the source; one is made up")


def _reference(series: Series, plane: Plane, uid_key: str, index: int) -> Reference:
    file = plane.file
    uid = file.sop_instance_uid
    return Reference(
        file.sop_class_uid if is_uid(file.sop_class_uid) else IMAGE_CLASSES[series.modality],
        uid if is_uid(uid) else derived_uid(uid_key, f"source instance {index}"),
        plane.frame,
    )


def _header(common: Dataset, series: Series, index: int, reference: Reference) -> Dataset:
    plane = series.instances[index]
    header = Dataset()
    header.update(common)
    # A stand-in for each frame of a multi-frame source; seg.py writes the true reference.
    header.SOPClassUID = IMAGE_CLASSES[series.modality]
    header.SOPInstanceUID = stand_in(reference)
    header.ImagePositionPatient = decimals(plane.position or ())
    return header


def _add_geometry(common: Dataset, series: Series) -> None:
    """As the source writes it; directions made orthonormal where highdicom would refuse them."""
    grid, first = series.usable_grid(), series.instances[0]
    exact = (*grid.axes[:, 0].tolist(), *grid.axes[:, 1].tolist())
    copied = first.orientation or exact
    off = max(abs(a - b) for a, b in zip(copied, exact, strict=True))
    common.Rows, common.Columns = grid.rows, grid.columns
    common.ImageOrientationPatient = decimals(copied if off <= ORTHONORMAL_TOLERANCE else exact)
    common.PixelSpacing = decimals(grid.pixel_spacing)
    thickness = first.thickness if first.thickness and first.thickness > 0 else grid.step
    common.SliceThickness = decimals((thickness,))[0]


def decimals(values: Iterable[float]) -> list[DSfloat]:
    """Numbers as DICOM writes them, in 16 characters at most."""
    return [DSfloat(value, auto_format=True) for value in values]


def stand_in(reference: Reference) -> str:
    """The UID that names a plane until its reference is written: its own, or one per frame."""
    if reference.frame is None:
        return reference.sop_instance_uid
    return derived_uid(reference.sop_instance_uid, f"frame {reference.frame}")
