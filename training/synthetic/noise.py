"""Smooth random fields, cheap enough for every training patch."""

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from model.types import SpacingZYX

Field = NDArray[np.float32]


def grains(
    shape: tuple[int, ...], spacing_mm: SpacingZYX, grain_mm: float, rng: Generator
) -> Field:
    """A smooth field ``shape`` (z, y, x), mean about 0 and spread about 1, whose grains are
    ``grain_mm`` wide: white noise on a coarse grid, spread by Gaussian kernels."""
    nodes = tuple(
        int(np.clip(round(n * s / grain_mm), 1, max(n, 2)))
        for n, s in zip(shape, spacing_mm, strict=True)
    )
    field: Field = rng.standard_normal(nodes, dtype=np.float32)
    for axis, (size, count) in enumerate(zip(shape, nodes, strict=True)):
        field = np.moveaxis(np.tensordot(_kernel(size, count), field, axes=(1, axis)), 0, axis)
    return np.ascontiguousarray(field)


def _kernel(size: int, count: int) -> Field:
    """``(size, count)`` Gaussian weights, each row of unit length, which keeps the variance."""
    position = (np.arange(size) + 0.5) * (count / size) - 0.5
    weights = np.exp(-0.5 * ((position[:, None] - np.arange(count)) / 0.6) ** 2)
    weights /= np.linalg.norm(weights, axis=1, keepdims=True)
    return np.asarray(weights, dtype=np.float32)
