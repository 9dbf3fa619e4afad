"""Is a case what it says? What is impossible raises; what is odd is a warning."""

from dataclasses import dataclass
from itertools import product

import cc3d
import numpy as np
from numpy.typing import NDArray

from model.errors import GeometryError, InputError
from model.resample import bounding_box
from model.types import LIVER, TUMOUR, Affine, MaskArray, ShapeZYX, SpacingZYX
from model.volume import Volume

PLAUSIBLE_LITRES = (0.3, 6.0)
_PLAUSIBLE_MM = ((0.3, 16.0), (0.2, 4.0))  # between slices, in the slice
_COARSE_MM = 3.0
_CT_LIVER_HU = (-20.0, 250.0)
_CT_AIR_HU = -300.0
_MR_AIR = 0.05  # of the range up to the 99th percentile, as in preprocessing
_AIR_SHARE = (0.1, 0.5)  # of a liver: odd, impossible
_MIRRORED = 0.5  # spread of intensities under the mirrored mask, relative to the mask's own
_LETTERS = (("L", "R"), ("P", "A"), ("S", "I"))


@dataclass(frozen=True)
class Facts:
    """What was measured of a case.

    ``orientation``: where the x, y and z index grow to (``LPS``). ``liver_ml`` counts tumours in.
    ``liver_voxels``, ``tumour_voxels``: labels 1 and 2. ``moments``: what ``shape_moments`` gives.
    ``warnings``: codes, each followed by its value.
    """

    shape: ShapeZYX
    spacing_mm: SpacingZYX
    orientation: str
    liver_voxels: int
    tumour_voxels: int
    liver_ml: float
    tumour_ml: float
    lesions: int
    moments: tuple[float, float, float]
    spacing_known: bool
    warnings: tuple[str, ...]


def check_case(volume: Volume, label: MaskArray) -> Facts:
    """Measure a volume and its label (same grid, values 0, 1, 2).

    Raises ``InputError``: ``non_finite_voxels``, ``empty_label``, ``label_misplaced`` (more than
    half of the liver lies in air); ``GeometryError`` (``oblique_grid``) when two axes of the grid
    share their main direction in the patient.
    """
    orientation = axis_letters(volume.affine)
    counts = np.bincount(label.ravel(), minlength=3)
    _check_voxels(volume, counts)
    coarse, mask = _coarse(volume, label)
    ml = volume.voxel_ml
    litres = float(counts[LIVER] + counts[TUMOUR]) * ml / 1000
    spacing = _spacing_warnings(volume.spacing_mm)
    warnings = [*spacing, *_volume_warnings(litres), *_intensity_warnings(volume, coarse, mask)]
    return Facts(
        volume.shape, volume.spacing_mm, orientation, int(counts[LIVER]), int(counts[TUMOUR]),
        round(litres * 1000, 2), round(float(counts[TUMOUR]) * ml, 3), count_lesions(label),
        shape_moments(label), not spacing, tuple(warnings),
    )  # fmt: skip


def axis_letters(affine: Affine) -> str:
    """``LPS`` when x grows to the left, y to the back, z to the head; one letter per axis."""
    steps = affine[:3, :3]
    axes = np.abs(steps).argmax(axis=0)
    if len(set(axes.tolist())) != 3:
        raise GeometryError(
            f"the grid is turned by 45 degrees or more ({steps.round(2).tolist()})",
            code="oblique_grid",
        )
    return "".join(_LETTERS[axis][int(steps[axis, k] < 0)] for k, axis in enumerate(axes))


def count_lesions(label: MaskArray) -> int:
    """Connected tumours (26 neighbours)."""
    tumour = label == TUMOUR
    box = bounding_box(tumour)
    if box is None:
        return 0
    parts = np.ascontiguousarray(tumour[box])
    return int(cc3d.connected_components(parts, connectivity=26, return_N=True)[1])


def shape_moments(label: MaskArray) -> tuple[float, float, float]:
    """Variances of the foreground's voxel indices along its principal axes, ascending: the same
    for every flip and every order of the axes, whatever the header says."""
    points = np.argwhere(label > 0).astype(np.float64)
    if len(points) < 2:
        return 0.0, 0.0, 0.0
    low, middle, high = np.linalg.eigvalsh(np.cov(points.T)).tolist()
    return round(low, 4), round(middle, 4), round(high, 4)


def _check_voxels(volume: Volume, counts: NDArray[np.intp]) -> None:
    if volume.array.dtype.kind == "f" and not np.isfinite(volume.array).all():
        raise InputError("the image holds NaN or infinite voxels", code="non_finite_voxels")
    if not counts[LIVER] + counts[TUMOUR]:
        raise InputError("the label is empty: no liver, no tumour", code="empty_label")


def _coarse(volume: Volume, label: MaskArray) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Every n-th voxel, about 3 mm apart (all, where the liver is too small for that)."""
    step = tuple(slice(None, None, max(1, int(_COARSE_MM // mm))) for mm in volume.spacing_mm)
    mask = label[step] > 0
    if not mask.any():
        return volume.array.astype(np.float32), label > 0
    return volume.array[step].astype(np.float32), mask


def _spacing_warnings(spacing_mm: SpacingZYX) -> list[str]:
    shown = " x ".join(f"{mm:.3g}" for mm in spacing_mm)
    if np.allclose(spacing_mm, 1.0, atol=1e-6):
        return [f"spacing_suspect: {shown} mm, as where a header has lost it"]
    spans = (_PLAUSIBLE_MM[0], _PLAUSIBLE_MM[1], _PLAUSIBLE_MM[1])
    # Which axis runs through the slices is not known of a reoriented file: the coarsest.
    coarse_first = sorted(spacing_mm, reverse=True)
    if all(low <= mm <= high for mm, (low, high) in zip(coarse_first, spans, strict=True)):
        return []
    return [f"spacing_suspect: {shown} mm"]


def _volume_warnings(litres: float) -> list[str]:
    low, high = PLAUSIBLE_LITRES
    return [] if low <= litres <= high else [f"liver_volume: {litres:.2f} l"]


def _intensity_warnings(
    volume: Volume, coarse: NDArray[np.float32], mask: NDArray[np.bool_]
) -> list[str]:
    inside = coarse[mask]
    air = float((inside <= _air(volume, coarse)).mean())
    if air > _AIR_SHARE[1]:
        raise InputError(
            f"{air:.0%} of the liver label lies in air: label and image do not belong together",
            code="label_misplaced",
        )
    warnings = [f"air_in_liver: {air:.0%}"] if air > _AIR_SHARE[0] else []
    middle = float(np.median(inside))
    if volume.modality == "ct" and not _CT_LIVER_HU[0] <= middle <= _CT_LIVER_HU[1]:
        warnings.append(f"liver_intensity: median {middle:.0f} HU")
    return warnings + _mirror_warnings(coarse, mask)


def _air(volume: Volume, coarse: NDArray[np.float32]) -> float:
    if volume.modality == "ct":
        return _CT_AIR_HU
    low, high = np.percentile(coarse, [1.0, 99.0])
    return float(low + _MR_AIR * (high - low))


def _mirror_warnings(coarse: NDArray[np.float32], mask: NDArray[np.bool_]) -> list[str]:
    """A liver is even; where a mirrored mask covers far more even tissue, the mask is turned."""
    own = _spread(coarse[mask])
    floor = np.percentile(coarse, 10)  # or air would be the most even tissue of all
    for axes in product((False, True), repeat=3):
        if not any(axes):
            continue
        turned = np.flip(mask, tuple(axis for axis in range(3) if axes[axis]))
        inside = coarse[turned]
        if np.median(inside) > floor and _spread(inside) < _MIRRORED * own:
            names = ", ".join(name for name, flipped in zip("zyx", axes, strict=True) if flipped)
            return [f"label_mirrored: would fit better flipped along {names}"]
    return []


def _spread(values: NDArray[np.float32]) -> float:
    low, high = np.percentile(values, [10, 90])
    return float(high - low)
