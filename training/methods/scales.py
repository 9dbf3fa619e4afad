"""How often each axis is halved, as nnU-Net plans it (Isensee et al. 2021): a patch of 256 x 256
x 16 voxels cannot be halved alike in every axis.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from model.types import ShapeZYX, SpacingZYX

_LEAST = 4  # voxels; no axis becomes shorter
_ALONE = 3 * _LEAST  # an axis that would be halved by itself must be this long
_ANISOTROPY = 2.0  # an axis this much coarser than the finest waits


@dataclass(frozen=True)
class Scales:
    """``strides`` into and ``kernels`` of each scale, (z, y, x), finest first; the first stride
    is 1."""

    strides: tuple[ShapeZYX, ...]
    kernels: tuple[ShapeZYX, ...]

    def __len__(self) -> int:
        return len(self.strides)


def plan_scales(patch: ShapeZYX, spacing_mm: SpacingZYX, most: int) -> Scales:
    """At most ``most`` scales for ``patch``.

    An axis is halved while it stays at least 4 voxels long and is even, and while its spacing is
    less than twice the finest of those that can be halved. Along an axis a kernel is 1 until its
    spacing is less than twice the finest, then 3. (nnU-Net would enlarge a patch to make an odd
    axis even.)
    """
    size, spacing, kernel = patch, spacing_mm, _kernel((1, 1, 1), spacing_mm)
    strides, kernels = [(1, 1, 1)], [kernel]
    while len(strides) < most and max(stride := _stride(size, spacing)) > 1:
        size = _triple(a // s for a, s in zip(size, stride, strict=True))
        z, y, x = (a * s for a, s in zip(spacing, stride, strict=True))
        spacing = (z, y, x)
        kernel = _kernel(kernel, spacing)
        strides.append(stride)
        kernels.append(kernel)
    return Scales(tuple(strides), tuple(kernels))


def _stride(size: ShapeZYX, spacing: SpacingZYX) -> ShapeZYX:
    able = [axis for axis in range(3) if size[axis] >= 2 * _LEAST and size[axis] % 2 == 0]
    finest = min((spacing[axis] for axis in able), default=0.0)
    halved = [axis for axis in able if spacing[axis] < _ANISOTROPY * finest]
    if len(halved) == 1 and size[halved[0]] < _ALONE:
        halved = []
    return _triple(2 if axis in halved else 1 for axis in range(3))


def _kernel(above: ShapeZYX, spacing: SpacingZYX) -> ShapeZYX:
    finest = min(spacing)
    return _triple(
        3 if wide == 3 or own < _ANISOTROPY * finest else 1
        for wide, own in zip(above, spacing, strict=True)
    )


def _triple(values: Iterable[int]) -> ShapeZYX:
    z, y, x = values
    return z, y, x
