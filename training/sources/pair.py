"""A volume and its label as two NIfTI files."""

from itertools import product
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from model.errors import AqcfError, InputError
from model.nifti import read_nifti
from model.types import Affine, MaskArray, Modality, ShapeZYX
from model.volume import Volume, spacing_mm

from .record import Labelled

_VALUES = (0, 1, 2)
_PLACE_TOLERANCE = 0.1  # of the smallest voxel side, at any corner of the volume


def load_pair(image: Path | None, label: Path | None, modality: Modality) -> Labelled:
    """Read both files.

    Raises ``InputError``: ``missing_file``, ``label_mismatch`` (shape, or a corner that lies more
    than a tenth of a voxel elsewhere), ``label_values``; and what ``read_nifti`` raises.
    """
    if image is None or label is None:
        lacking, there = ("image", label) if image is None else ("label", image)
        raise InputError(f"{there} has no {lacking}", code="missing_file")
    volume, mask = read_named(image, modality), read_named(label, modality)
    check_place(mask, volume, label.name)
    return volume, as_mask(mask.array, label.name)


def read_named(path: Path, modality: Modality) -> Volume:
    """``read_nifti`` whose errors name the file."""
    try:
        return read_nifti(path, modality)
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}", code="missing_file") from error
    except AqcfError as error:
        raise type(error)(f"{path}: {error.message}", code=error.code) from error


def check_place(mask: Volume, volume: Volume, name: str) -> None:
    """Refuse a label that has another shape, or lies elsewhere, than its image."""
    if mask.shape != volume.shape:
        raise InputError(
            f"{name}: shape {mask.shape}, the image has {volume.shape} (z, y, x)",
            code="label_mismatch",
        )
    apart = _corner_distance(mask.affine, volume.affine, volume.shape)
    if apart > _PLACE_TOLERANCE * min(spacing_mm(volume.affine)):
        raise InputError(
            f"{name}: lies up to {apart:.2f} mm away from the image; the affines differ",
            code="label_mismatch",
        )


def as_mask(array: NDArray[np.generic], name: str) -> MaskArray:
    """Labels of any dtype as uint8; refuse what is not 0, 1 or 2."""
    with np.errstate(invalid="ignore"):
        mask = array.astype(np.uint8)
    counts = np.bincount(mask.ravel(), minlength=3)
    if counts[3:].any() or not np.array_equal(mask, array):
        values = np.unique(array)
        wrong = values[~np.isin(values, _VALUES)][:5].tolist()
        raise InputError(f"{name}: label values {wrong} are not 0, 1 or 2", code="label_values")
    return mask


def _corner_distance(first: Affine, second: Affine, shape: ShapeZYX) -> float:
    z, y, x = (side - 1 for side in shape)
    corners = np.array([[*corner, 1] for corner in product((0, x), (0, y), (0, z))])
    return float(np.linalg.norm(corners @ (first - second).T, axis=1).max())
