"""What all result objects share that are written element by element: patient, study, equipment."""

from collections.abc import Iterable

from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID

from .algorithm import MANUFACTURER, MODEL_NAME
from .sanitise import (
    DEIDENTIFIED,
    TRIAL_REQUIRED,
    TRIAL_SUBJECT,
    TRIAL_TYPE_2,
    TYPE_2,
    TYPE_3,
    Reference,
)
from .segread import SegContent
from .uids import derived_uid

COPIED = (
    "SpecificCharacterSet",
    *TYPE_2,
    *TYPE_3,
    *TRIAL_REQUIRED,
    *TRIAL_SUBJECT,
    *TRIAL_TYPE_2,
    *DEIDENTIFIED,
    "StudyInstanceUID",
    "FrameOfReferenceUID",
    "PositionReferenceIndicator",
)
MOMENTS = ("InstanceCreationDate", "InstanceCreationTime", "ContentDate", "ContentTime")


def derived_dataset(
    header: Dataset, content: SegContent, sop_class_uid: str, syntax: str
) -> Dataset:
    """A new instance of the source's study; series, instance and content are the caller's.

    ``header``: of ``canonical_sources``. Times are the SEG's, so that an object that is made twice
    is the same.
    """
    dataset = Dataset()
    for keyword in COPIED:
        if keyword in header:
            setattr(dataset, keyword, header[keyword].value)
    dataset.SOPClassUID = UID(sop_class_uid)
    dataset.Manufacturer = MANUFACTURER
    dataset.ManufacturerModelName = MODEL_NAME
    dataset.DeviceSerialNumber = content.algorithm.name
    dataset.SoftwareVersions = content.algorithm.version
    same_moment(dataset, content)
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = UID(syntax)
    return dataset


def same_moment(dataset: Dataset, content: SegContent) -> None:
    """Date and time of the SEG that the object tells of."""
    for keyword in MOMENTS:
        setattr(dataset, keyword, content.dataset[keyword].value)
    for equipment in dataset.get("ContributingEquipmentSequence", ()):  # highdicom's own
        equipment.ContributionDateTime = f"{dataset.ContentDate}{dataset.ContentTime}"


def place_in_series(
    dataset: Dataset, uid_key: str, role: str, *, series_number: int, instance: int = 1
) -> None:
    """UIDs and numbers; ``role`` tells the kinds of result apart."""
    dataset.SeriesInstanceUID = derived_uid(uid_key, f"{role} series")
    dataset.SeriesNumber = series_number
    dataset.SOPInstanceUID = derived_uid(uid_key, f"{role} instance {instance}")
    dataset.InstanceNumber = instance


def referred(reference: Reference) -> Dataset:
    """One source plane (PS3.3 10.3, Image SOP Instance Reference)."""
    item = Dataset()
    item.ReferencedSOPClassUID = reference.sop_class_uid
    item.ReferencedSOPInstanceUID = reference.sop_instance_uid
    if reference.frame is not None:
        item.ReferencedFrameNumber = reference.frame
    return item


def referred_instances(references: Iterable[Reference]) -> list[Dataset]:
    """Each instance once; of a multi-frame one, all the frames that are meant."""
    frames: dict[str, list[Reference]] = {}
    for reference in references:
        frames.setdefault(reference.sop_instance_uid, []).append(reference)
    items = []
    for same in frames.values():
        item = referred(same[0])
        if same[0].frame is not None:
            item.ReferencedFrameNumber = [reference.frame for reference in same]
        items.append(item)
    return items
