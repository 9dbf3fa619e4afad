"""Who an instance is: the few elements at the start of its header, whatever follows them."""

import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

from pydicom.dataset import Dataset
from pydicom.filereader import _read_file_meta_info as read_meta
from pydicom.filereader import read_dataset, read_partial
from pydicom.tag import BaseTag, Tag

from .filebytes import has_prefix, is_damage, is_deflated
from .quiet import quiet
from .values import text

KEYWORDS = (
    "SOPClassUID",
    "SOPInstanceUID",
    "Modality",
    "Manufacturer",
    "ManufacturerModelName",
    "PatientID",
    "StudyInstanceUID",
    "SeriesInstanceUID",
)
LAST = Tag("SeriesInstanceUID")
TAGS: list[BaseTag | int] = [Tag(keyword) for keyword in KEYWORDS]
PREAMBLE_BYTES = 132
PEEK_BYTES = 1024
INFLATED_BYTES = 2**20
READABLE = re.compile(r"[\x21-\x7e]{1,64}")


class UnreadableHeadError(Exception):
    """No DICOM, or the header breaks off or lacks an identity. Holds no value of it."""


@dataclass(frozen=True)
class Head:
    """Header values as they are; patient data. Where the header lacks them, the SOP class and
    instance are the file meta's, and the study is called as the series: such files are found in
    practice."""

    sop_class_uid: str
    sop_instance_uid: str
    series_uid: str
    study_uid: str
    modality: str
    manufacturer: str
    model_name: str
    patient_id: str


def read_head(path: Path) -> Head:
    """The identity of a DICOM file (PS3.10), in time and memory that do not grow with it.

    Raises ``UnreadableHeadError`` where there is none, ``OSError`` when the file cannot be read.
    """
    try:
        with path.open("rb") as stream, quiet():
            return _head(_dataset(stream))
    except UnreadableHeadError:
        raise
    except Exception as error:  # a corrupt header makes the parser raise nearly anything
        if not is_damage(error):
            raise
        raise UnreadableHeadError from error


def _dataset(stream: BinaryIO) -> Dataset:
    start = stream.read(PEEK_BYTES)
    stream.seek(0)
    if not has_prefix(start):
        raise UnreadableHeadError
    if is_deflated(start):
        return _inflated(stream)
    dataset: Dataset = read_partial(stream, stop_when=_behind, specific_tags=TAGS)
    return dataset


def _inflated(stream: BinaryIO) -> Dataset:
    packed = stream.read(INFLATED_BYTES)
    begins = 144 + int.from_bytes(packed[140:144], "little")
    engine = zlib.decompressobj(-zlib.MAX_WBITS)
    data = BytesIO(engine.decompress(packed[begins:], INFLATED_BYTES))
    dataset = read_dataset(data, False, True, stop_when=_behind, specific_tags=TAGS)
    stream.seek(PREAMBLE_BYTES)
    dataset.file_meta = read_meta(stream)
    return dataset


def _behind(tag: BaseTag, _vr: str | None, _length: int) -> bool:
    return bool(tag > LAST)


def _head(dataset: Dataset) -> Head:
    values = {keyword: text(dataset, keyword) for keyword in KEYWORDS}
    series, study = values["SeriesInstanceUID"], values["StudyInstanceUID"]
    meta = dataset.file_meta
    head = Head(
        sop_class_uid=values["SOPClassUID"] or text(meta, "MediaStorageSOPClassUID"),
        sop_instance_uid=values["SOPInstanceUID"] or text(meta, "MediaStorageSOPInstanceUID"),
        series_uid=series,
        study_uid=study or series,
        modality=values["Modality"].upper(),
        manufacturer=values["Manufacturer"],
        model_name=values["ManufacturerModelName"],
        patient_id=values["PatientID"],
    )
    _check((head.sop_class_uid, head.sop_instance_uid, head.series_uid, head.study_uid))
    return head


def _check(uids: Sequence[str]) -> None:
    if not all(READABLE.fullmatch(uid) for uid in uids):
        raise UnreadableHeadError
