"""A case: the one image of an upload that will be segmented, and its way into a ``Volume``."""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from model.nifti import Limits as NiftiLimits
from model.nifti import read_nifti
from model.spec import sha256_of
from model.types import Modality
from model.volume import Volume

from .domain import InputKind
from .settings import Settings
from .uploads import Opened

if TYPE_CHECKING:
    from .dicom.pixels import LoadedSeries

SUFFIXES: Mapping[InputKind, str] = {"dicom": ".dcm", "nifti": ".nii"}


@dataclass(frozen=True)
class Case:
    """``files``: of the chosen series only. ``content``: hex SHA-256 over SOP instance UIDs and
    pixels (DICOM) or the file (NIfTI). ``receipt``: one JSON-able line per series looked at."""

    kind: InputKind
    modality: Modality
    files: tuple[Path, ...]
    content: str
    receipt: tuple[Mapping[str, Any], ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class LoadedCase:
    """``series`` is there for DICOM only, and knows the way back to its slices."""

    volume: Volume
    series: "LoadedSeries | None" = None
    notes: tuple[str, ...] = ()


def examine(opened: Opened, modality: Modality, series: str, settings: Settings) -> Case:
    """Choose a series and gate its geometry, or read the NIfTI file.

    Raises ``InputError`` with the code of what is wrong; ``DicomInputError`` has a receipt.
    """
    if opened.kind == "nifti":
        return _examine_nifti(opened, modality, settings)
    return _examine_dicom(opened, modality, series, settings)


def load_case(
    kind: InputKind, files: tuple[Path, ...], modality: Modality, settings: Settings
) -> LoadedCase:
    """Read the voxels of a case that was examined before."""
    if kind == "nifti":
        limits = NiftiLimits(max_voxels=settings.max_voxels)
        return LoadedCase(read_nifti(files[0], modality, limits=limits))
    return _load_dicom(files, modality, settings)


def settings_key(case: Case, model_sha256: str, profile: str) -> str:
    """The content key of a job: the same image, model and settings give the same key, and from
    the key come the UIDs of what is written."""
    parts = (case.content, case.modality, model_sha256, profile)
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def _examine_nifti(opened: Opened, modality: Modality, settings: Settings) -> Case:
    load_case("nifti", opened.files, modality, settings)
    return Case("nifti", modality, opened.files, sha256_of(opened.files[0]), notes=opened.notes)
