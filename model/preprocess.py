"""From a native volume to what the network sees, and back. One implementation for training and
serving (section 3.1.2 of the paper; the numbers are fields of ``ModalitySpec``).

1. The body is found on a coarse sample of the native voxels, and everything else left out.
2. The body's box is resampled to the spec's orientation and spacing, directly from the native
   voxels (``resample``); the box grows to the patch and to multiples of 16.
3. Intensities become [0, 1]; what lies outside the native volume is 0.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import cc3d
import numpy as np
from numpy.typing import NDArray

from .errors import InputError, InputTooLargeError
from .resample import (
    bounding_box,
    covered,
    grid_affine,
    oriented_axes,
    resample,
    sub_affine,
)
from .spec import DIVISOR, FixedIntensity, Intensity, ModalitySpec
from .types import Affine, ImageArray, MaskArray, ShapeZYX
from .volume import Volume, lean_of, spacing_mm

MAX_VOXELS = 512**3  # of the resampled grid: 512 MiB in float32
AIR_HU = -1024.0
_COARSE_MM = 4.0
_PART_OF_BODY = 0.2  # a component this large against the largest belongs to the body
_FLOOR = 0.05  # of the range up to the 99th percentile: air; dark livers lie at 8 to 20 %
_SLAB = 16

Box = tuple[slice, slice, slice]


@dataclass(frozen=True, eq=False)
class Prepared:
    """A volume as the network sees it, and where it came from.

    ``array``: ``(z, y, x)`` float32 in [0, 1], each side at least the patch's and a multiple of
    16. ``affine``: its place, LPS mm; its axes are at right angles and parallel to the native ones
    (where native slices lean, to their rows, columns and normal). ``content``: the box of
    ``array`` that holds the native volume; all outside the volume is 0.
    """

    array: ImageArray
    affine: Affine
    native_shape: ShapeZYX
    native_affine: Affine
    content: Box

    @property
    def shape(self) -> ShapeZYX:
        z, y, x = self.array.shape
        return z, y, x


def prepare(volume: Volume, spec: ModalitySpec) -> Prepared:
    """Resample, normalise and crop ``volume`` as ``spec`` says.

    Raises ``InputTooLargeError`` when the body needs more than ``MAX_VOXELS`` at the spec's
    spacing, ``InputError`` (``non_finite_voxels``) when it holds NaN or infinity.
    """
    floor = AIR_HU if volume.modality == "ct" else None
    coarse, strides = _coarse(volume)
    threshold = foreground_threshold(coarse, spec.intensity)
    box = _body_box(coarse > threshold, strides, volume.shape)
    affine, shape = _target_grid(volume, box, spec)
    # What is below the threshold becomes 0, and so does what lies beside slices that lean.
    values = resample(volume.array, volume.affine, affine, shape, floor, outside=threshold)
    content = covered(volume.shape, volume.affine, affine, shape)
    array = np.zeros(shape, np.float32)
    array[content] = normalise(values[content], spec.intensity, threshold)
    return Prepared(array, affine, volume.shape, volume.affine, content)


def largest_shape(shape: ShapeZYX, affine: Affine, spec: ModalitySpec) -> ShapeZYX:
    """The prepared shape of a native grid if the body fills all of it: what ``prepare`` needs at
    the most, known before a voxel is read."""
    sources, _ = oriented_axes(affine, spec.orientation)
    return _sides(_extent_mm(shape, affine), sources, spec)


def foreground_threshold(values: ImageArray, intensity: Intensity) -> float:
    """What is body and not air: above ``lo`` of a fixed rule; else above a twentieth of the way to
    the 99th percentile, counted from the first (scanner intensities have no unit)."""
    if isinstance(intensity, FixedIntensity):
        return intensity.lo
    low, high = np.percentile(values, [1.0, 99.0])
    return float(low + _FLOOR * (high - low))


def normalise(values: ImageArray, intensity: Intensity, threshold: float) -> ImageArray:
    """Intensities to [0, 1]: the fixed window, or percentiles of the voxels above ``threshold``."""
    lo, hi = _window(values, intensity, threshold)
    scaled: ImageArray = np.subtract(values, np.float32(lo))
    scaled /= np.float32(max(hi - lo, 1e-6))
    if not np.isfinite(scaled).all():  # before clipping, which would make infinity look white
        raise InputError("the image holds NaN or infinite voxels", code="non_finite_voxels")
    np.clip(scaled, 0.0, 1.0, out=scaled)
    return scaled


def resample_label(mask: MaskArray, affine: Affine, prepared: Prepared) -> MaskArray:
    """A native label map on the prepared grid: the class with the largest share of each voxel.

    ``mask``: ``(z, y, x)`` uint8 with its ``affine``, parallel to the prepared grid.
    """
    box = bounding_box(mask > 0, margin=1)
    result = np.zeros(prepared.shape, np.uint8)
    if box is None:
        return result
    cropped, place = mask[box], sub_affine(affine, box)
    best = 1.0 - resample(cropped > 0, place, prepared.affine, prepared.shape)
    for value in np.unique(cropped[cropped > 0]):
        share = resample(cropped == value, place, prepared.affine, prepared.shape)
        wins = share > best
        result[wins] = value
        best[wins] = share[wins]
    return result


def to_native(scores: ImageArray, prepared: Prepared) -> MaskArray:
    """The winning class of each native voxel.

    ``scores``: ``(classes, z, y, x)`` logits on the prepared grid, class 0 the background. Their
    softmax is interpolated linearly, class by class and slab by slab, and the largest wins.
    Interpolated probabilities beat the background only beside a voxel where they do so
    themselves, so only the box around such voxels is looked at.
    """
    result = np.zeros(prepared.native_shape, np.uint8)
    box = bounding_box((scores[1:] > scores[0]).any(axis=0), margin=1)
    if box is None:
        return result
    shares = _softmax(scores[:, box[0], box[1], box[2]])
    affine = sub_affine(prepared.affine, box)
    z, y, x = covered(shares.shape[1:], affine, prepared.native_affine, prepared.native_shape)
    for start in range(z.start, z.stop, _SLAB):
        part = (slice(start, min(start + _SLAB, z.stop)), y, x)
        result[part] = _winner(shares, affine, prepared.native_affine, part)
    return result


def _coarse(volume: Volume) -> tuple[ImageArray, tuple[int, int, int]]:
    """Every n-th voxel, about 4 mm apart."""
    z, y, x = (max(1, int(_COARSE_MM // step)) for step in volume.spacing_mm)
    return np.asarray(volume.array[::z, ::y, ::x], np.float32), (z, y, x)


def _body_box(coarse: NDArray[np.bool_], strides: tuple[int, int, int], shape: ShapeZYX) -> Box:
    """The native box of the large connected parts; the whole volume when there are none."""
    labels = cc3d.connected_components(coarse, connectivity=6)
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    large = sizes >= max(1, _PART_OF_BODY * sizes.max())
    found = bounding_box(large[labels], margin=1)
    if found is None:
        return slice(0, shape[0]), slice(0, shape[1]), slice(0, shape[2])
    z, y, x = (
        slice(part.start * step, min(part.stop * step, side))
        for part, step, side in zip(found, strides, shape, strict=True)
    )
    return z, y, x


def _target_grid(volume: Volume, box: Box, spec: ModalitySpec) -> tuple[Affine, ShapeZYX]:
    """The spec's grid around the box, grown to the patch and to multiples of 16."""
    sources, axes = oriented_axes(volume.affine, spec.orientation)
    counts = [part.stop - part.start for part in box]
    z, y, x = _sides(_extent_mm(counts, volume.affine), sources, spec)
    if z * y * x > MAX_VOXELS:
        raise InputTooLargeError(
            f"the body needs {z} x {y} x {x} voxels at {spec.spacing_mm} mm (z, y, x); "
            f"the limit is {MAX_VOXELS}"
        )
    middle = [(p.start + p.stop - 1) / 2 for p in reversed(box)]
    centre = volume.affine[:3, :3] @ middle + volume.affine[:3, 3]
    return grid_affine(axes, spec.spacing_mm, centre, (z, y, x)), (z, y, x)


def _extent_mm(counts: Sequence[int], affine: Affine) -> list[float]:
    """The upright box, ``(z, y, x)`` mm, around so many voxels; wider where slices lean."""
    lean_x, lean_y = lean_of(affine)
    return [
        (count + abs(shift) * (counts[0] - 1)) * step
        for count, shift, step in zip(
            counts, (0.0, lean_y, lean_x), spacing_mm(affine), strict=True
        )
    ]


def _sides(
    sides_mm: Sequence[float], sources: tuple[int, int, int], spec: ModalitySpec
) -> ShapeZYX:
    wanted = [sides_mm[2 - sources[2 - k]] / spec.spacing_mm[k] for k in range(3)]
    z, y, x = (_side(n, patch) for n, patch in zip(wanted, spec.patch, strict=True))
    return z, y, x


def _side(wanted: float, patch: int) -> int:
    padded: int = math.ceil((wanted - 1e-3) / DIVISOR) * DIVISOR
    return max(patch, padded)


def _window(values: ImageArray, intensity: Intensity, threshold: float) -> tuple[float, float]:
    if isinstance(intensity, FixedIntensity):
        return intensity.lo, intensity.hi
    body = values[values > threshold]
    if not body.size:
        return threshold, threshold + 1.0
    lo, hi = np.percentile(body, [intensity.lo, intensity.hi])
    return float(lo), float(hi)


def _softmax(scores: ImageArray) -> ImageArray:
    shares: ImageArray = scores - scores.max(axis=0)
    np.exp(shares, out=shares)
    shares /= shares.sum(axis=0)
    return shares


def _winner(shares: ImageArray, affine: Affine, native_affine: Affine, part: Box) -> MaskArray:
    """The class of the largest interpolated share in one native box; ties go to the lower."""
    place = sub_affine(native_affine, part)
    z, y, x = (p.stop - p.start for p in part)
    best = resample(shares[0], affine, place, (z, y, x))
    winner = np.zeros(best.shape, np.uint8)
    for value in range(1, len(shares)):
        share = resample(shares[value], affine, place, (z, y, x))
        wins = share > best
        winner[wins] = value
        np.maximum(best, share, out=best)
    return winner
