"""Cases on disk: the index, the split by patient, reading."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydantic import BaseModel, ValidationError

from model.errors import ConfigError, InputError
from model.nifti import read_nifti
from model.types import MODALITIES, MaskArray, Modality, SpacingZYX
from model.volume import Volume

from .config import DataConfig
from .sample import Quality

INDEX = "cases.json"
TEST = "test"  # the role of cases that neither train nor validate


@dataclass(frozen=True)
class Case:
    """One labelled volume on disk. ``spacing_mm`` is set where the header has lost it
    and the configuration knows better; ``spacing_known`` is what the index says of the header.
    ``has_tumour`` also where a ``merged`` label cannot show it."""

    name: str
    modality: Modality
    patient: str
    quality: Quality
    licence: str
    role: str
    image: Path
    label: Path
    spacing_mm: SpacingZYX | None = None
    has_tumour: bool = False
    spacing_known: bool = True


def list_cases(data: DataConfig) -> list[Case]:
    """The cases of ``cases.json``.

    Raises ``ConfigError`` for a missing root or file, an entry that is not valid, and a case that
    the configuration names but the index does not.
    """
    index = data.root / INDEX
    if not index.is_file():
        raise ConfigError(f"{index} does not exist; data.root must hold {INDEX}")
    rows = json.loads(index.read_text(encoding="utf-8"))
    cases = [_case(data, _entry(row, index)) for row in rows]
    names = {case.name for case in cases}
    for name in (
        *data.validate_cases,
        *data.test_cases,
        *data.exclude,
        *data.weights,
        *data.spacings_mm,
    ):
        if name not in names:
            raise ConfigError(f"case {name!r} is not in {index}")
    return [case for case in cases if case.name not in data.exclude]


def split(cases: Sequence[Case], data: DataConfig) -> tuple[list[Case], list[Case]]:
    """Training and validation cases; no patient is in both, patients of test cases in neither.

    Only a case that ``may_be_tested`` validates.
    """
    tested = {c.patient for c in cases if c.role == TEST or c.name in data.test_cases}
    held = {case.patient for case in cases if case.name in data.validate_cases}
    train = [c for c in cases if c.patient not in held | tested]
    validate = [c for c in cases if c.patient in held - tested and may_be_tested(c)]
    for modality in MODALITIES:
        if not any(c.modality == modality for c in train):
            raise ConfigError(f"no {modality} case is left to train on")
    return train, validate


def may_be_tested(case: Case) -> bool:
    """Whether its geometry is known and its label is not another model's."""
    return case.quality != "pseudo" and case.spacing_mm is None and case.spacing_known


def read_case(case: Case) -> tuple[Volume, MaskArray]:
    """The native volume and its label on the same grid.

    Raises ``InputError`` (``label_mismatch``) when the grids differ or a label is not 0, 1, 2.
    """
    volume = read_nifti(case.image, case.modality)
    label = read_nifti(case.label, case.modality)
    values = np.unique(label.array)
    same_place = np.allclose(label.affine, volume.affine, atol=1e-2)
    if label.shape != volume.shape or not same_place or not np.isin(values, (0, 1, 2)).all():
        raise InputError(
            f"{case.name}: label {label.shape}, values {values[:5].tolist()}, does not fit the "
            f"image {volume.shape}",
            code="label_mismatch",
        )
    if case.spacing_mm is not None:
        volume = _respaced(volume, case.spacing_mm)
    return volume, label.array.astype(np.uint8)


class _Entry(BaseModel):
    """One row of ``cases.json``; it may say more than is read here."""

    case: str
    modality: Modality
    patient: str
    labels: Quality
    licence: str
    role: str = "develop"
    spacing_known: bool = True
    tumour: bool | None = None  # where it is not known: what the label quality suggests


def _entry(row: dict[str, object], index: Path) -> _Entry:
    try:
        return _Entry.model_validate(row)
    except ValidationError as error:
        raise ConfigError(f"{index}, case {row.get('case')!r}: {error}") from error


def _case(data: DataConfig, entry: _Entry) -> Case:
    name = entry.case
    tumour = entry.labels in ("full", "merged") if entry.tumour is None else entry.tumour
    folder = data.root / name
    image, label = folder / "image.nii.gz", folder / "label.nii.gz"
    for file in (image, label):
        if not file.is_file():
            raise ConfigError(f"case {name!r}: {file} does not exist")
    return Case(
        name, entry.modality, entry.patient, entry.labels, entry.licence, entry.role,
        image, label, data.spacings_mm.get(name), tumour, entry.spacing_known,
    )  # fmt: skip


def _respaced(volume: Volume, spacing_mm: SpacingZYX) -> Volume:
    affine = volume.affine.copy()
    affine[:3, :3] *= np.array(spacing_mm[::-1]) / np.array(volume.spacing_mm[::-1])
    return Volume(volume.array, affine, volume.modality)
