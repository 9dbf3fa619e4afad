"""How well a saliency map meets a mask (section 4.3). Maps are ``(z, y, x)``, normalised to [0, 1];
masks are boolean and of the same shape; ``spacing_mm`` is ``(z, y, x)``.

The paper names the three figures but not their thresholds. Here a voxel is salient from
``threshold``, a share of the map's maximum, by default 0.5.
"""

from math import ceil

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from ..errors import InputError
from ..resample import bounding_box
from ..types import ImageArray, SpacingZYX

THRESHOLD = 0.5
BAND_MM = 3.0
_ROUNDING_MM = 1e-6

BoolArray = NDArray[np.bool_]


def saliency_iou(saliency: ImageArray, mask: BoolArray, threshold: float = THRESHOLD) -> float:
    """|salient and mask| / |salient or mask|. Raises ``InputError`` for an empty mask, another
    shape, a map outside [0, 1] or a threshold outside (0, 1]."""
    salient = _salient(saliency, mask, threshold)
    return int(np.count_nonzero(salient & mask)) / int(np.count_nonzero(salient | mask))


def band_coverage(
    saliency: ImageArray,
    mask: BoolArray,
    spacing_mm: SpacingZYX,
    *,
    width_mm: float = BAND_MM,
    threshold: float = THRESHOLD,
) -> float:
    """The share of ``boundary_band`` that is salient.

    Errors: see ``saliency_iou``; also ``no_band`` for a mask that fills the volume, and for voxels
    so large (from 6 mm for a band of 3) that none has its centre in the band.
    """
    salient = _salient(saliency, mask, threshold)
    band = boundary_band(mask, spacing_mm, width_mm)
    if not band.any():
        raise InputError(
            f"no voxel of {spacing_mm} mm (z, y, x) has its centre within {width_mm:g} mm of the "
            "mask's boundary",
            code="no_band",
        )
    return int(np.count_nonzero(salient & band)) / int(np.count_nonzero(band))


def pointing_hit(
    saliency: ImageArray, mask: BoolArray, spacing_mm: SpacingZYX, tolerance_mm: float = 0.0
) -> bool:
    """Whether the map's peak lies in the mask, or its centre within ``tolerance_mm`` of the centre
    of one of the mask's voxels. Of several equal peaks the first in scan order counts; a map of
    zeros has no peak and misses. Errors: see ``saliency_iou``."""
    _check(saliency, mask)
    if not saliency.any():
        return False
    peak = np.unravel_index(int(saliency.argmax()), saliency.shape)
    if mask[peak] or tolerance_mm <= 0:
        return bool(mask[peak])
    step = np.array(spacing_mm)
    apart = (np.argwhere(mask) - np.array(peak)) * step
    return bool(np.sqrt((apart**2).sum(axis=1).min()) <= tolerance_mm)


def boundary_band(mask: BoolArray, spacing_mm: SpacingZYX, width_mm: float = BAND_MM) -> BoolArray:
    """The voxels whose centre lies within ``width_mm`` of the mask's surface, on either side.

    The surface is the set of centres of the faces between the mask's voxels and others. (From
    voxel to voxel, the next slice at 5 mm would be out of a 3 mm band though the surface is 2.5 mm
    away.) The volume's edge is no surface.
    """
    step = np.array(spacing_mm, np.float64)
    band = np.zeros(mask.shape, np.bool_)
    box = bounding_box(mask, margin=ceil(width_mm / step.min() + 0.5))
    surface = np.zeros((0, 3)) if box is None else _face_centres(mask[box])
    if box is None or not len(surface):
        return band
    tree = cKDTree(surface * step, balanced_tree=False, compact_nodes=False)
    voxels = np.indices(mask[box].shape).reshape(3, -1).T * step
    apart, _ = tree.query(voxels, distance_upper_bound=width_mm + _ROUNDING_MM)
    band[box] = np.isfinite(apart).reshape(band[box].shape)
    return band


def _face_centres(mask: BoolArray) -> NDArray[np.float64]:
    """Between every two voxels of which one is in the mask, in voxels, ``(n, 3)``."""
    centres = []
    for axis in range(3):
        first = np.argwhere(np.diff(mask, axis=axis)).astype(np.float64)
        first[:, axis] += 0.5
        centres.append(first)
    return np.concatenate(centres)


def _salient(saliency: ImageArray, mask: BoolArray, threshold: float) -> BoolArray:
    _check(saliency, mask)
    if not 0 < threshold <= 1:
        raise InputError(f"threshold {threshold}: it is a share of the maximum, in (0, 1]")
    salient: BoolArray = saliency >= threshold
    return salient


def _check(saliency: ImageArray, mask: BoolArray) -> None:
    if saliency.shape != mask.shape:
        raise InputError(f"the map has shape {saliency.shape}, the mask {mask.shape}")
    if not mask.any():
        raise InputError("the mask is empty; there is nothing for the saliency to meet")
    low, high = float(saliency.min()), float(saliency.max())
    if not (low >= 0 and high <= 1):
        raise InputError(f"the map goes from {low:g} to {high:g}; normalise it to [0, 1]")
