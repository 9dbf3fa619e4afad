"""Whole phantoms as scanners would give them: an abdomen with a liver, and a head without."""

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from model.types import LIVER, TUMOUR, MaskArray, Modality, ShapeZYX, SpacingZYX
from model.volume import Volume

from .anatomy import paint_abdomen, paint_head
from .canvas import Canvas
from .noise import Field, grains
from .tissues import Palette, palette
from .tumours import add_tumours

SHAPE: ShapeZYX = (64, 192, 192)
SPACING_MM: SpacingZYX = (4.0, 2.0, 2.0)
WINDOW_HU = (-16.0, 176.0)
ATTEMPTS = 8  # a lesion may be lost in a thick slice


def phantom(
    modality: Modality,
    rng: Generator,
    *,
    shape_zyx: ShapeZYX = SHAPE,
    spacing_mm: SpacingZYX = SPACING_MM,
    max_tumours: int = 4,
) -> tuple[Volume, MaskArray]:
    """An abdomen and its mask (0 background, 1 liver, 2 tumour), ``(z, y, x)``, same grid.

    CT: int16 HU, one of three contrast phases; MR: uint16 in arbitrary units, one of four
    sequences, with bias field. The grid's axes run to L, P and S; its middle is the abdomen's,
    so a field of view under about 350 x 260 x 200 mm (x, y, z) cuts the body. ``max_tumours`` 0
    leaves the liver healthy. The same ``rng`` state gives the same phantom.
    """
    tissue = palette(modality, rng)
    canvas = Canvas(shape_zyx, spacing_mm, tissue["air"], rng=rng)
    paint_abdomen(canvas, tissue, rng)
    if max_tumours:
        _tumours(canvas, modality, rng, max_tumours)
    return _scan(canvas, modality, tissue, rng), canvas.label


def head_phantom(
    rng: Generator,
    modality: Modality,
    *,
    shape_zyx: ShapeZYX = (48, 128, 128),
    spacing_mm: SpacingZYX = (4.0, 2.0, 2.0),
) -> Volume:
    """A head: skull, brain and air, no liver anywhere. dtypes and axes as ``phantom``."""
    tissue = palette(modality, rng)
    canvas = Canvas(shape_zyx, spacing_mm, tissue["air"], rng=rng)
    paint_head(canvas, tissue)
    return _scan(canvas, modality, tissue, rng)


def _tumours(canvas: Canvas, modality: Modality, rng: Generator, count: int) -> None:
    low, high = WINDOW_HU if modality == "ct" else (0.0, 1.0)
    scaled = np.clip((canvas.image - low) / (high - low), 0.0, 1.0)
    for _ in range(ATTEMPTS if (canvas.label == LIVER).any() else 0):
        grown, label = add_tumours(
            scaled, canvas.label, modality, canvas.spacing_mm, rng, max_count=count
        )
        if (label == TUMOUR).any():
            canvas.image += (grown - scaled) * (high - low)
            canvas.label = label
            return


def _scan(canvas: Canvas, modality: Modality, tissue: Palette, rng: Generator) -> Volume:
    if modality == "ct":
        return Volume(_hounsfield(canvas, rng), canvas.affine, modality)
    return Volume(_signal(canvas, tissue, rng), canvas.affine, modality)


def _mottle(canvas: Canvas, grain_mm: float, rng: Generator) -> Field:
    return grains(canvas.label.shape, canvas.spacing_mm, grain_mm, rng)


def _hounsfield(canvas: Canvas, rng: Generator) -> NDArray[np.int16]:
    """Mottled tissue under Gaussian noise, a little correlated in the slice as kernels make it."""
    image: Field = canvas.image + 3.0 * _mottle(canvas, 12.0, rng)
    noise: Field = rng.standard_normal(image.shape, dtype=np.float32)
    for axis in (1, 2):
        noise += np.float32(rng.uniform(0.2, 0.8)) * np.roll(noise, 1, axis=axis)
    image += noise * (rng.uniform(7.0, 22.0) / noise[:4].std())
    return np.clip(np.rint(image), -1024, 3071).astype(np.int16)


def _signal(canvas: Canvas, tissue: Palette, rng: Generator) -> NDArray[np.uint16]:
    """Tissue under a bias field and Rician noise, on a scale of the scanner's own."""
    image: Field = canvas.image * (1.0 + 0.03 * _mottle(canvas, 10.0, rng))
    image *= np.exp(rng.uniform(0.05, 0.25) * _mottle(canvas, 150.0, rng))  # bias
    sigma = rng.uniform(0.03, 0.1) * tissue["liver"]
    noise: Field = np.float32(sigma) * rng.standard_normal((2, *image.shape), dtype=np.float32)
    scale = np.exp(rng.uniform(np.log(300.0), np.log(8000.0)))
    return np.asarray(
        np.clip(np.rint(np.hypot(image + noise[0], noise[1]) * scale), 0, 65535), dtype=np.uint16
    )
