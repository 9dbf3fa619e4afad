"""Synthetic liver tumours: irregular, textured, hypo- or hyper-intense (after Hu et al. 2023,
"Label-free liver tumor segmentation"). Everything happens inside the lesion's bounding box."""

from dataclasses import dataclass, replace

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from scipy.ndimage import uniform_filter

from model.types import LIVER, TUMOUR, ImageArray, MaskArray, Modality, ShapeZYX, SpacingZYX

from .noise import Field, grains

RADIUS_MM = (3.0, 40.0)
MEDIAN_RADIUS_MM, RADIUS_SPREAD = 8.5, 0.6  # of the log-normal
LARGEST_SHARE = 0.4  # of the liver in view that one lesion may take
MARGIN = 1.5  # the box's half side in longest radii: the irregular outline stays within
CT_WINDOW_HU = 192.0
DIM_LIVER = 0.42  # an MR liver below this on [0, 1] is more likely T2 than T1
MIN_LIVER_VOXELS = 32


@dataclass(frozen=True)
class Lesion:
    """What one lesion is: form in mm, intensities on the image's [0, 1] scale."""

    radius_mm: float
    axes: tuple[float, float, float]  # relative half axes, geometric mean 1
    irregularity: float
    edge_mm: float  # width of the transition to liver
    slice_mm: float  # thickness of the slice it was seen through
    contrast: float
    core: float  # added to the contrast in the middle
    rim: float  # added to the contrast in a shell along the border
    mottle: float  # amplitude of the texture of a few mm
    keep: float  # how much of the liver's own texture stays
    calcified: bool


@dataclass(frozen=True)
class Surroundings:
    """The liver around a lesion: median, spread of its voxels, spread of the fine noise."""

    level: float
    spread: float
    noise: float


def add_tumours(
    image: ImageArray,
    label: MaskArray,
    modality: Modality,
    spacing_mm: SpacingZYX,
    rng: Generator,
    *,
    max_count: int = 4,
) -> tuple[ImageArray, MaskArray]:
    """Image and label with one to ``max_count`` tumours grown in the liver, as new arrays.

    ``image``: ``(z, y, x)`` float32 in [0, 1], preprocessed; ``label``: same shape, 0/1/2;
    ``spacing_mm``: ``(z, y, x)``. Only voxels labelled liver (1) change; a lesion's voxels of
    weight above 0.5 become 2. Without liver the copies are unchanged. The same ``rng`` state
    gives the same arrays. Raises ``ValueError`` when the shapes differ.
    """
    if image.shape != label.shape:
        raise ValueError(f"image {image.shape} and label {label.shape} differ in shape")
    image, label = image.copy(), label.copy()
    liver = np.flatnonzero(label == LIVER)
    if liver.size < MIN_LIVER_VOXELS:
        return image, label
    limit = _largest_radius_mm(liver.size, spacing_mm)
    for _ in range(min(int(rng.geometric(0.5)), max_count)):
        z, y, x = np.unravel_index(int(rng.choice(liver)), label.shape)
        centre = int(z), int(y), int(x)
        _grow(image, label, centre, modality, limit, spacing_mm=spacing_mm, rng=rng)
    return image, label


def _largest_radius_mm(voxels: int, spacing_mm: SpacingZYX) -> float:
    volume = LARGEST_SHARE * voxels * float(np.prod(spacing_mm))
    return float((volume * 3 / (4 * np.pi)) ** (1 / 3))


def _grow(
    image: ImageArray,
    label: MaskArray,
    centre: ShapeZYX,
    modality: Modality,
    limit_mm: float,
    *,
    spacing_mm: SpacingZYX,
    rng: Generator,
) -> None:
    """Draw one lesion into both arrays, in place."""
    lesion = _draw_form(modality, limit_mm, rng)
    box, offset = _box(centre, lesion, spacing_mm, image.shape)
    part, part_label = image[box], label[box]
    liver = part_label == LIVER
    if not liver.any():  # a lesion before this one took all that was here
        return
    around = _surroundings(part, liver)
    lesion = _draw_looks(lesion, modality, around, rng)
    depth = _depth_mm(lesion, part.shape, offset, spacing_mm, rng)
    weight = _through_slice(_ramp(depth / lesion.edge_mm), lesion.slice_mm / spacing_mm[0])
    weight *= liver
    inside = weight > 0.5
    if not inside.any():
        return
    # The organ's edge is partial volume: a lesion that reaches it must not end in a step.
    weight *= uniform_filter(liver.astype(np.float32), 3, mode="nearest")
    part += weight * _change(part, depth, lesion, around, spacing_mm=spacing_mm, rng=rng)
    np.clip(part, 0.0, 1.0, out=part)
    part_label[inside] = TUMOUR


def _draw_form(modality: Modality, limit_mm: float, rng: Generator) -> Lesion:
    radius = MEDIAN_RADIUS_MM * np.exp(RADIUS_SPREAD * rng.standard_normal())
    radius = float(np.clip(radius, RADIUS_MM[0], max(RADIUS_MM[0], min(RADIUS_MM[1], limit_mm))))
    stretch = np.exp(rng.normal(0.0, 0.18, 3))
    stretch /= np.prod(stretch) ** (1 / 3)
    thickest, sharpest = (5.0, 1.0) if modality == "ct" else (8.0, 2.0)
    return Lesion(
        radius_mm=radius,
        axes=(float(stretch[0]), float(stretch[1]), float(stretch[2])),
        irregularity=float(rng.uniform(0.04, 0.22)),
        edge_mm=float(rng.uniform(sharpest, sharpest + 1.0 + 0.25 * radius)),
        slice_mm=min(float(rng.uniform(0.0, thickest)), radius),
        contrast=0.0,
        core=0.0,
        rim=0.0,
        mottle=0.0,
        keep=float(rng.uniform(0.4, 1.0)),
        calcified=modality == "ct" and bool(rng.random() < 0.02),
    )


def _draw_looks(lesion: Lesion, modality: Modality, around: Surroundings, rng: Generator) -> Lesion:
    contrast = _ct_contrast(around, rng) if modality == "ct" else _mr_contrast(around, rng)
    core = rim = 0.0
    if lesion.radius_mm > 7.0 and rng.random() < 0.35:
        core = contrast * rng.uniform(0.2, 0.8)
    if rng.random() < 0.3:
        rim = -contrast * rng.uniform(0.3, 1.3)
    mottle = abs(contrast) * rng.uniform(0.05, 0.3)
    return replace(
        lesion, contrast=float(contrast), core=float(core), rim=float(rim), mottle=float(mottle)
    )


def _ct_contrast(around: Surroundings, rng: Generator) -> float:
    """Mostly hypodense by 14-75 HU, now and then hyperdense; never hidden in the noise."""
    strength = np.exp(rng.uniform(np.log(14.0), np.log(75.0))) / CT_WINDOW_HU
    strength = max(strength, 0.6 * around.noise)
    if rng.random() < 0.12:
        return float(0.8 * strength)
    return -float(min(strength, max(0.9 * around.level, 0.05)))


def _mr_contrast(around: Surroundings, rng: Generator) -> float:
    """Either sign, since the sequence is unknown: a dim liver (T2, fat suppressed) has mostly
    bright lesions, a bright one (T1) mostly dark ones; in proportion to the liver's level."""
    dim = around.level < DIM_LIVER
    floor = max(0.05, 0.8 * around.noise)
    if rng.random() < (0.75 if dim else 0.25):
        strongest = 1.5 if dim else 0.6
        strength = around.level * np.exp(rng.uniform(np.log(0.15), np.log(strongest)))
        return float(min(max(strength, floor), max(0.95 - around.level, floor)))
    strength = around.level * np.exp(rng.uniform(np.log(0.12), np.log(0.55)))
    return -float(min(max(strength, floor), 0.9 * around.level))


def _box(
    centre: ShapeZYX, lesion: Lesion, spacing_mm: SpacingZYX, shape: tuple[int, ...]
) -> tuple[tuple[slice, ...], ShapeZYX]:
    """The lesion's slices, cut at the border, and where the centre lies inside them."""
    reach = lesion.radius_mm * max(lesion.axes) * MARGIN + lesion.edge_mm + lesion.slice_mm
    starts = [max(0, c - int(np.ceil(reach / s))) for c, s in zip(centre, spacing_mm, strict=True)]
    stops = [
        min(n, c + int(np.ceil(reach / s)) + 1)
        for n, c, s in zip(shape, centre, spacing_mm, strict=True)
    ]
    z, y, x = (c - start for c, start in zip(centre, starts, strict=True))
    return tuple(slice(a, b) for a, b in zip(starts, stops, strict=True)), (z, y, x)


def _surroundings(part: Field, liver: NDArray[np.bool_]) -> Surroundings:
    voxels = part[liver]
    step = max(1, voxels.size // 4096)
    low, level, high = np.percentile(voxels[::step], (16, 50, 84))
    pairs = liver[..., 1:] & liver[..., :-1]
    differences = np.abs(part[..., 1:][pairs] - part[..., :-1][pairs])[::step]
    noise = float(np.median(differences)) * 1.05 if differences.size else 0.0
    return Surroundings(float(level), float(high - low) / 2, noise)


def _depth_mm(
    lesion: Lesion, shape: tuple[int, ...], offset: ShapeZYX, spacing_mm: SpacingZYX, rng: Generator
) -> Field:
    """About how deep a voxel lies under the lesion's surface, in mm; negative outside."""
    z, y, x = (
        ((np.arange(n) - o) * s).astype(np.float32)
        for n, o, s in zip(shape, offset, spacing_mm, strict=True)
    )
    squared = np.zeros(shape, dtype=np.float32)
    rows = _rotation(rng) / (lesion.radius_mm * np.array(lesion.axes)[:, None])
    for row in rows.astype(np.float32):
        squared += (row[0] * z[:, None, None] + row[1] * y[:, None] + row[2] * x) ** 2
    distance = np.sqrt(squared)
    bumps = grains(shape, spacing_mm, 0.8 * lesion.radius_mm, rng)
    # Bumps fade towards the centre, so that the centre stays inside.
    distance += lesion.irregularity * np.clip(bumps, -2.0, 2.0) * np.minimum(distance, 1.0)
    return np.asarray((1.0 - distance) * lesion.radius_mm, dtype=np.float32)


def _rotation(rng: Generator) -> NDArray[np.float64]:
    rotation, _ = np.linalg.qr(rng.standard_normal((3, 3)))
    return np.asarray(rotation, dtype=np.float64)


def _ramp(edges: Field) -> Field:
    """0 half an edge outside the surface, 1 half an edge inside, smooth between."""
    t = np.clip(edges + 0.5, 0.0, 1.0)
    return np.asarray(t * t * (3.0 - 2.0 * t), dtype=np.float32)


def _through_slice(weight: Field, voxels: float) -> Field:
    """Mean over a slice ``voxels`` thick along z: the partial volume of a thick slice."""
    half = int(voxels / 2)
    if half == 0:
        return weight
    padded = np.pad(weight, ((half + 1, half), (0, 0), (0, 0)), mode="edge")
    total = np.cumsum(padded, axis=0, dtype=np.float32)
    return (total[2 * half + 1 :] - total[: -2 * half - 1]) / np.float32(2 * half + 1)


def _change(
    part: Field,
    depth: Field,
    lesion: Lesion,
    around: Surroundings,
    *,
    spacing_mm: SpacingZYX,
    rng: Generator,
) -> Field:
    """What a voxel wholly inside the lesion gains."""
    grain = grains(part.shape, spacing_mm, rng.uniform(3.0, 8.0), rng)
    change = lesion.contrast + lesion.mottle * grain
    if lesion.core:
        change += lesion.core * _ramp((depth - 0.55 * lesion.radius_mm) / (0.4 * lesion.radius_mm))
    if lesion.rim:
        width = 1.0 + 0.12 * lesion.radius_mm
        change += lesion.rim * np.exp(-(((depth - 0.7 * width) / width) ** 2))
    if lesion.calcified:
        change += 0.5 * _ramp(4.0 * (grain - 1.8))
    # The liver's vessels and texture give way, its noise stays; a border with fat stays a border.
    own = np.clip(part - around.level, -2.5 * around.spread, 2.5 * around.spread)
    change -= (1.0 - lesion.keep) * own
    change += (1.0 - lesion.keep) * 0.8 * around.noise * rng.standard_normal(part.shape, np.float32)
    return np.asarray(change, dtype=np.float32)
