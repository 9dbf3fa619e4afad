"""Smooth random fields, cheap enough for every training patch.

A few taps per axis instead of matrix products: BLAS threads would fight the training's.
"""

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
        field = blend(field, *_taps(size, count), axis)
    return field


def blend(field: Field, index: NDArray[np.intp], weights: Field, axis: int) -> Field:
    """Along ``axis``, element i becomes the sum over taps k of ``weights[k, i]`` times the
    ``field`` at ``index[k, i]``. ``index``, ``weights``: ``(taps, size)``."""
    shape = [1] * field.ndim
    shape[axis] = index.shape[1]
    total = field.take(index[0], axis) * weights[0].reshape(shape)
    for i, w in zip(index[1:], weights[1:], strict=True):
        total += field.take(i, axis) * w.reshape(shape)
    return np.asarray(total, dtype=np.float32)


def _taps(size: int, count: int) -> tuple[NDArray[np.intp], Field]:
    """Gaussian weights of the nearest nodes, of unit length, which keeps the variance."""
    position = (np.arange(size) + 0.5) * (count / size) - 0.5
    index = np.rint(position).astype(np.intp) + np.arange(-2, 3)[:, None]
    weights = np.exp(-0.5 * ((position - index) / 0.6) ** 2)
    weights[(index < 0) | (index >= count)] = 0.0
    weights /= np.linalg.norm(weights, axis=0)
    return np.clip(index, 0, count - 1), weights.astype(np.float32)
