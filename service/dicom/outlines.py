"""Masks of slices that lie between the slices of a grid: outlines move, they do not fade.

Shape-based interpolation: the signed distances to the outline in the slice below and above are
mixed, and the mask is where the mixture is inside. Each part is mixed by itself: mixed with another
elsewhere in the slice it would vanish.
"""

from typing import Final

import cc3d
import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt, find_objects

from model.resample import bounding_box
from model.types import BACKGROUND, LIVER, TUMOUR, MaskArray

ON_GRID = 0.02  # of a step: nearer than this is the slice itself
_CONNECTIVITY: Final = 26


def outline_at(mask: MaskArray, place: float) -> MaskArray:
    """The mask ``(rows, columns)`` at a place in slices of ``mask``, 0 to ``len(mask) - 1``.

    Liver and tumour together are one outline, the tumour another within it. A part, 26-connected
    in the two neighbours, that only one of them holds goes by the nearer slice.
    """
    nearest = round(place)
    if abs(place - nearest) < ON_GRID:
        own: MaskArray = mask[nearest]
        return own
    below = int(place)
    pair = mask[below : below + 2]
    box = bounding_box(pair != BACKGROUND, margin=1)
    result = np.zeros(mask.shape[1:], mask.dtype)
    if box is not None:
        result[box[1:]] = _mixed(pair[:, box[1], box[2]], place - below)
    return result


def _mixed(pair: MaskArray, weight: float) -> MaskArray:
    organ = _between(pair != BACKGROUND, weight)
    tumour = _between(pair == TUMOUR, weight) & organ
    return np.where(tumour, TUMOUR, np.where(organ, LIVER, BACKGROUND)).astype(pair.dtype)


def _between(pair: NDArray[np.bool_], weight: float) -> NDArray[np.bool_]:
    parts = cc3d.connected_components(pair, connectivity=_CONNECTIVITY)
    result = np.zeros(pair.shape[1:], np.bool_)
    for number, (_, *box) in enumerate(find_objects(parts), start=1):
        part = parts[:, *box] == number
        result[*box] |= _part_between(np.pad(part, ((0, 0), (1, 1), (1, 1))), weight)[1:-1, 1:-1]
    return result


def _part_between(pair: NDArray[np.bool_], weight: float) -> NDArray[np.bool_]:
    """Of one part, with background around it."""
    if not (pair[0].any() and pair[1].any()):
        nearer: NDArray[np.bool_] = pair[round(weight)]
        return nearer
    lower, upper = (_signed_distance(plane) for plane in pair)
    inside: NDArray[np.bool_] = lower * (1 - weight) + upper * weight > 0
    return inside


def _signed_distance(plane: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Pixels to the outline, positive inside."""
    inner: NDArray[np.float64] = distance_transform_edt(plane)
    outer: NDArray[np.float64] = distance_transform_edt(~plane)
    return inner - outer
