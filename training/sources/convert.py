"""One record as a prepared case: ``<root>/<name>/{image,label}.nii.gz`` and ``case.json``."""

import hashlib
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from model.errors import InputError
from model.nifti import write_nifti
from model.types import Modality, ShapeZYX, SpacingZYX

from ..sample import Quality
from .checks import check_case
from .record import Labelled, Record

IMAGE, LABEL, ROW = "image.nii.gz", "label.nii.gz", "case.json"
_VERSION = 1  # raise when the same download gives another case


class Row(BaseModel):
    """One row of ``cases.json``: what the case is, and what was measured (``checks.Facts``).

    ``overlaps``: a data set that holds the same scan. ``stamp``: changes with the source's files.
    """

    model_config = ConfigDict(frozen=True)

    case: str
    modality: Modality
    patient: str
    labels: Quality
    licence: str
    role: str = "develop"
    tumour: bool | None
    source: str
    spacing_known: bool
    overlaps: str | None
    shape: ShapeZYX
    spacing_mm: SpacingZYX
    orientation: str
    liver_voxels: int
    tumour_voxels: int
    liver_ml: float
    tumour_ml: float
    lesions: int
    moments: tuple[float, float, float]
    warnings: tuple[str, ...]
    stamp: str


@dataclass(frozen=True)
class Broken:
    """A case that cannot be used, and why."""

    name: str
    message: str
    code: str

    def error(self) -> InputError:
        """To raise where it may not be skipped."""
        return InputError(
            f"{self.name}: {self.message} (--skip-broken goes on without it)", code=self.code
        )


def convert(root: Path, record: Record) -> Row | Broken:
    """Read, check and write one case; one that was made of the same files is left as it is.

    Voxels are copied, not resampled; the label is uint8 on the image's grid. The case appears
    whole or not at all.
    """
    try:
        stamp = _stamp(record)
        kept = _kept(root / record.name, stamp)
        return kept or _write(root / record.name, record, record.load(), stamp)
    except InputError as error:
        return Broken(record.name, error.message, error.code)


def _stamp(record: Record) -> str:
    facts = (_VERSION, record.name, record.patient, record.quality, record.licence, record.source,
             record.tumour, record.overlaps)  # fmt: skip
    digest = hashlib.sha256(repr(facts).encode())
    for file in record.files:
        state = file.stat()
        digest.update(f"{file.name} {state.st_size} {state.st_mtime_ns}\n".encode())
    return digest.hexdigest()[:16]


def _kept(place: Path, stamp: str) -> Row | None:
    if not all((place / name).is_file() for name in (IMAGE, LABEL, ROW)):
        return None
    try:
        row = Row.model_validate_json((place / ROW).read_bytes())
    except ValidationError:
        return None
    return row if row.stamp == stamp else None


def _write(place: Path, record: Record, labelled: Labelled, stamp: str) -> Row:
    volume, label = labelled
    row = _row(record, labelled, stamp)
    half = place.with_name(f".{place.name}.partial")
    shutil.rmtree(half, ignore_errors=True)  # of a run that was killed
    half.mkdir(parents=True)
    write_nifti(half / IMAGE, volume.array, volume.affine)
    write_nifti(half / LABEL, label, volume.affine)
    (half / ROW).write_text(row.model_dump_json(indent=1) + "\n", encoding="utf-8")
    if place.exists():
        shutil.rmtree(place)
    half.rename(place)
    return row


def _row(record: Record, labelled: Labelled, stamp: str) -> Row:
    facts = check_case(*labelled)
    known = facts.tumour_voxels > 0 if record.quality == "full" else record.tumour
    return Row(
        case=record.name, modality=record.modality, patient=record.patient, labels=record.quality,
        licence=record.licence, tumour=known, source=record.source, overlaps=record.overlaps,
        stamp=stamp, **asdict(facts),
    )  # fmt: skip
