"""Agreement of two masks. ``spacing_mm`` and all arrays are ``(z, y, x)``.

Empty masks are defined, not dropped: with both empty the Dice is 1 and every distance 0; with one
empty the Dice is 0 and every distance infinite.
"""

import math

import edt
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from .errors import InputError
from .resample import bounding_box
from .types import SpacingZYX

BoolArray = NDArray[np.bool_]
Distances = NDArray[np.float32]


def dice(prediction: BoolArray, reference: BoolArray) -> float:
    """2 |A and B| / (|A| + |B|)."""
    _check(prediction, reference)
    total = int(np.count_nonzero(prediction)) + int(np.count_nonzero(reference))
    if total == 0:
        return 1.0
    return 2.0 * int(np.count_nonzero(prediction & reference)) / total


def hd95_mm(prediction: BoolArray, reference: BoolArray, spacing_mm: SpacingZYX) -> float:
    """The larger of the two directed 95th percentiles of the distance between the surfaces."""
    return surface_agreement_mm(prediction, reference, spacing_mm)[0]


def mean_surface_distance_mm(
    prediction: BoolArray, reference: BoolArray, spacing_mm: SpacingZYX
) -> float:
    """The mean over the voxels of both surfaces of the distance to the other (symmetric)."""
    return surface_agreement_mm(prediction, reference, spacing_mm)[1]


def surface_agreement_mm(
    prediction: BoolArray, reference: BoolArray, spacing_mm: SpacingZYX
) -> tuple[float, float]:
    """``hd95_mm`` and ``mean_surface_distance_mm`` from one pass over the masks."""
    _check(prediction, reference)
    empty = _of_empty(prediction, reference)
    if empty is not None:
        return empty, empty
    there, back = _surface_distances(prediction, reference, spacing_mm)
    hd95 = max(np.percentile(there, 95), np.percentile(back, 95))
    return float(hd95), float(np.concatenate([there, back]).mean(dtype=np.float64))


def _check(prediction: BoolArray, reference: BoolArray) -> None:
    if prediction.shape != reference.shape:
        raise InputError(f"the masks have shapes {prediction.shape} and {reference.shape}")


def _of_empty(prediction: BoolArray, reference: BoolArray) -> float | None:
    some = (bool(prediction.any()), bool(reference.any()))
    if all(some):
        return None
    return math.inf if any(some) else 0.0


def _surface_distances(
    prediction: BoolArray, reference: BoolArray, spacing_mm: SpacingZYX
) -> tuple[Distances, Distances]:
    """From each surface voxel to the nearest of the other surface, from distance maps of the box
    that holds both masks: unlike a tree's, their time does not grow when the masks are far apart.
    """
    box = bounding_box(prediction | reference) or ()
    first, second = _surface(prediction[box]), _surface(reference[box])
    return _map(second, spacing_mm)[first], _map(first, spacing_mm)[second]


def _surface(mask: BoolArray) -> BoolArray:
    """Mask voxels with a face neighbour outside the mask or the array."""
    surface: BoolArray = mask & ~ndimage.binary_erosion(mask)
    return surface


def _map(surface: BoolArray, spacing_mm: SpacingZYX) -> Distances:
    """Distance in mm of every voxel to the nearest one of ``surface``."""
    distances: Distances = edt.edt(~surface, anisotropy=spacing_mm, black_border=False, parallel=0)
    return distances
