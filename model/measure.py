"""What a mask says in numbers: liver volume, tumour burden, and every lesion."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final, TypeAlias

import cc3d
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial.distance import pdist, squareform

from .resample import bounding_box, sub_affine
from .types import BACKGROUND, TUMOUR, Affine, MaskArray, NativeArray
from .volume import Volume

LesionLabels: TypeAlias = NDArray[np.uint16] | NDArray[np.uint32]  # (z, y, x), 0 = no lesion
PointLPS: TypeAlias = tuple[float, float, float]  # mm

_CONNECTIVITY: Final = 26
_ORIGIN = np.zeros(2, np.int64)


@dataclass(frozen=True)
class Lesion:
    """One 26-connected tumour component; numbers start at 1, the largest first.

    ``long_axis_mm``: the largest distance between the centres of two of its voxels in one slice
    as stored (the acquisition plane, as RECIST measures); a lesion of one voxel has 0.
    ``long_axis_slice``: that slice's index; ``long_axis_ends_mm``: the two voxel centres, LPS.
    ``intensity_mean``, ``intensity_sd``: HU for CT, scanner units for MR.
    """

    number: int
    voxels: int
    volume_ml: float
    long_axis_mm: float
    long_axis_slice: int
    long_axis_ends_mm: tuple[PointLPS, PointLPS]
    centroid_mm: PointLPS
    intensity_mean: float
    intensity_sd: float


@dataclass(frozen=True)
class Measurements:
    """``liver_ml`` counts the tumour in, ``liver_without_tumour_ml`` leaves it out; the burden is
    tumour over ``liver_ml``. ``intensity_unit``: ``HU`` or ``1``."""

    liver_ml: float
    liver_without_tumour_ml: float
    tumour_ml: float
    tumour_burden_percent: float
    intensity_unit: str
    lesions: tuple[Lesion, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain dicts, tuples and numbers, ready for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Measurements":
        """What ``to_dict`` gave, also by way of JSON."""
        lesions = tuple(_lesion_from(lesion) for lesion in values["lesions"])
        return cls(**{**values, "lesions": lesions})


def _lesion_from(values: Mapping[str, Any]) -> Lesion:
    one, other = values["long_axis_ends_mm"]
    places = {
        "long_axis_ends_mm": (tuple(one), tuple(other)),
        "centroid_mm": tuple(values["centroid_mm"]),
    }
    return Lesion(**{**values, **places})


def measure(mask: MaskArray, volume: Volume, labels: LesionLabels | None = None) -> Measurements:
    """Measure a native mask. ``labels``: ``lesion_labels(mask)`` where the caller has it."""
    if labels is None:
        labels = lesion_labels(mask)
    voxel_ml = volume.voxel_ml
    organ = int(np.count_nonzero(mask != BACKGROUND))
    tumour = int(np.count_nonzero(mask == TUMOUR))
    return Measurements(
        liver_ml=organ * voxel_ml,
        liver_without_tumour_ml=(organ - tumour) * voxel_ml,
        tumour_ml=tumour * voxel_ml,
        tumour_burden_percent=100.0 * tumour / organ if organ else 0.0,
        intensity_unit="HU" if volume.modality == "ct" else "1",
        lesions=_lesions(labels, volume),
    )


def lesion_labels(mask: MaskArray) -> LesionLabels:
    """The lesion number of each voxel, largest lesion first, ties in scan order."""
    result = np.zeros(mask.shape, np.uint16)
    box = bounding_box(mask == TUMOUR)
    if box is None:
        return result
    found, count = cc3d.connected_components(
        mask[box] == TUMOUR, connectivity=_CONNECTIVITY, return_N=True
    )
    sizes = np.bincount(found.ravel(), minlength=count + 1)[1:]
    dtype = np.uint16 if count < 2**16 else np.uint32
    numbers = np.zeros(count + 1, dtype)
    numbers[1 + np.argsort(-sizes, kind="stable")] = np.arange(1, count + 1)
    result = result.astype(dtype, copy=False)
    result[box] = numbers[found]
    return result


def _lesions(labels: LesionLabels, volume: Volume) -> tuple[Lesion, ...]:
    found = ndimage.find_objects(labels) if labels.any() else []
    return tuple(_lesion(n, labels, box, volume) for n, box in enumerate(found, start=1))


def _lesion(
    number: int, labels: LesionLabels, box: tuple[slice, slice, slice], volume: Volume
) -> Lesion:
    inside = labels[box] == number
    affine = sub_affine(volume.affine, box)
    values = volume.array[box][inside].astype(np.float64)
    points = np.argwhere(inside)
    length, index, ends = _long_axis(inside, affine)
    return Lesion(
        number=number,
        voxels=len(points),
        volume_ml=len(points) * volume.voxel_ml,
        long_axis_mm=length,
        long_axis_slice=box[0].start + index,
        long_axis_ends_mm=ends,
        centroid_mm=_point(points.mean(axis=0), affine),
        intensity_mean=float(values.mean()),
        intensity_sd=float(values.std()),
    )


def _long_axis(
    inside: NDArray[np.bool_], affine: Affine
) -> tuple[float, int, tuple[PointLPS, PointLPS]]:
    """Length, slice index and ends of the longest in-slice line between two voxel centres."""
    step = np.linalg.norm(affine[:3, :3], axis=0)[[1, 0]]  # (y, x)
    best = -1.0
    where: tuple[int, NDArray[np.int64], NDArray[np.int64]] = (0, _ORIGIN, _ORIGIN)
    for index, plane in enumerate(inside):
        points = _row_ends(plane)
        if not len(points) or np.linalg.norm(np.ptp(points, axis=0) * step) <= best:
            continue
        distances = squareform(pdist(points * step)) if len(points) > 1 else np.zeros((1, 1))
        a, b = np.unravel_index(distances.argmax(), distances.shape)
        if distances[a, b] > best:
            best, where = float(distances[a, b]), (index, points[a], points[b])
    index, first, second = where
    ends = (_point(np.array([index, *first]), affine), _point(np.array([index, *second]), affine))
    return best, index, ends


def _row_ends(plane: NDArray[np.bool_]) -> NDArray[np.int64]:
    """The first and last voxel of each row ``(y, x)``: every corner of the hull is among them."""
    rows = np.flatnonzero(plane.any(axis=1))
    first = plane[rows].argmax(axis=1)
    last = plane.shape[1] - 1 - plane[rows, ::-1].argmax(axis=1)
    ends = np.concatenate([np.stack([rows, first], axis=1), np.stack([rows, last], axis=1)])
    return np.unique(ends, axis=0)


def _point(index_zyx: NativeArray, affine: Affine) -> PointLPS:
    x, y, z = affine[:3, :3] @ np.asarray(index_zyx, np.float64)[::-1] + affine[:3, 3]
    return float(x), float(y), float(z)
