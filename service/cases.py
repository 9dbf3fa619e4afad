"""A case: the one image of an upload that will be segmented, and its way into a ``Volume``."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from model.errors import InputError
from model.nifti import Limits as NiftiLimits
from model.nifti import read_nifti
from model.spec import sha256_of
from model.types import Affine, Modality, ShapeZYX
from model.volume import Volume

from .dicom.hashing import content_key
from .dicom.pixels import LoadedSeries, load
from .dicom.series import Series, SeriesSet, choose, scan
from .domain import InputKind
from .settings import Settings
from .uploads import Opened

SUFFIXES: Mapping[InputKind, str] = {"dicom": ".dcm", "nifti": ".nii"}


@dataclass(frozen=True, eq=False)
class Grid:
    """What a case's volume will be, known before its voxels are: ``shape`` ``(z, y, x)``,
    ``affine`` ``(x, y, z, 1)`` to LPS mm, ``itemsize`` in bytes per voxel."""

    shape: ShapeZYX
    affine: Affine
    itemsize: int


@dataclass(frozen=True, eq=False)
class Case:
    """``files``: of the chosen series only. ``content``: hex SHA-256 over SOP instance UIDs and
    pixels (DICOM) or the file (NIfTI). ``receipt``: one JSON-able line per series looked at."""

    kind: InputKind
    modality: Modality
    files: tuple[Path, ...]
    content: str
    grid: Grid
    receipt: tuple[Mapping[str, Any], ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class LoadedCase:
    """``series`` is there for DICOM only, and knows the way back to its slices."""

    volume: Volume
    series: LoadedSeries | None = None
    notes: tuple[str, ...] = ()


def examine(opened: Opened, modality: Modality, series: str, settings: Settings) -> Case:
    """Choose a series and gate its geometry, or read the NIfTI file.

    Raises ``InputError`` with the code of what is wrong; ``DicomInputError`` has a receipt.
    """
    if opened.kind == "nifti":
        return _examine_nifti(opened, modality, settings)
    return _examine_dicom(opened, modality, series, settings)


def load_case(
    kind: InputKind, files: Sequence[Path], modality: Modality, settings: Settings, content: str
) -> LoadedCase:
    """Read the voxels of a case that was examined before; ``content`` as ``Case`` has it."""
    if kind == "nifti":
        return LoadedCase(_read_nifti(files[0], modality, settings))
    loaded = load(find_series(files, modality, settings, content))
    return LoadedCase(loaded.volume, loaded, loaded.notes)


def find_series(
    files: Sequence[Path], modality: Modality, settings: Settings, content: str
) -> Series:
    """The series of a DICOM case, by its headers alone."""
    return _series_of(scan(files, modality, settings), content)


def settings_key(case: Case, model_sha256: str, profile: str) -> str:
    """The content key of a job: the same image, model and settings give the same key, and from
    the key come the UIDs of what is written."""
    parts = (case.content, case.modality, model_sha256, profile)
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def _examine_nifti(opened: Opened, modality: Modality, settings: Settings) -> Case:
    volume = _read_nifti(opened.files[0], modality, settings)  # NaN and truncation show here
    grid = Grid(volume.shape, volume.affine, volume.array.itemsize)
    content = sha256_of(opened.files[0])
    return Case("nifti", modality, opened.files, content, grid, notes=opened.notes)


def _read_nifti(file: Path, modality: Modality, settings: Settings) -> Volume:
    try:
        return read_nifti(file, modality, limits=NiftiLimits(max_voxels=settings.max_voxels))
    except (ValueError, OverflowError) as error:  # NaN where the header needs a number
        raise InputError("the NIfTI header cannot be read", code="not_nifti") from error


def _examine_dicom(opened: Opened, modality: Modality, series: str, settings: Settings) -> Case:
    chosen, receipt = choose(scan(opened.files, modality, settings), series)
    files = tuple(dict.fromkeys(plane.file.path for plane in chosen.instances))
    return Case(
        kind="dicom",
        modality=modality,
        files=files,
        content=content_key(chosen),
        grid=_grid(chosen),
        receipt=tuple(line.as_json() for line in receipt),
        notes=opened.notes,
    )


def _grid(series: Series) -> Grid:
    """As ``dicom.pixels.load`` will make it: int16 in nearly every series, float32 at the most."""
    native = series.usable_grid()
    whole = all(pair[0].is_integer() for pair in {plane.rescale for plane in series.instances})
    shape = (native.regular_slices, native.rows, native.columns)
    return Grid(shape, native.affine, 2 if whole else 4)


def _series_of(found: SeriesSet, content: str) -> Series:
    """The series that was chosen, among what its files hold: a multi-frame file may hold more
    than one, and keys depend on what else was uploaded."""
    usable = [series for series in found.series if series.code is None]
    if len(usable) > 1:
        usable = [series for series in usable if content_key(series) == content]
    return usable[0] if usable else choose(found)[0]
