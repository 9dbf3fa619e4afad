"""The plan of halvings."""

import numpy as np
import pytest

from model.types import ShapeZYX, SpacingZYX
from training.methods.scales import plan_scales

ISOTROPIC = (1.0, 1.0, 1.0)


@pytest.mark.parametrize(
    ("patch", "strides"),
    [
        ((128, 128, 128), [(2, 2, 2)] * 5),  # nnU-Net's for LiTS: six scales down to 4 x 4 x 4
        ((16, 256, 256), [(2, 2, 2)] * 2 + [(1, 2, 2)] * 4),  # the paper's patch
        ((32, 112, 112), [(2, 2, 2)] * 3 + [(1, 2, 2)]),  # 7 is odd
        ((16, 80, 80), [(2, 2, 2)] * 2 + [(1, 2, 2)] * 2),
        ((16, 16, 32), [(2, 2, 2)] * 2),  # x would be halved by itself, to 4
        ((16, 16, 48), [(2, 2, 2)] * 2 + [(1, 1, 2)]),
    ],
)
def test_isotropic_voxels_are_halved_until_an_axis_is_short_or_odd(
    patch: ShapeZYX, strides: list[ShapeZYX]
) -> None:
    scales = plan_scales(patch, ISOTROPIC, 9)
    assert scales.strides == ((1, 1, 1), *strides)
    assert set(scales.kernels) == {(3, 3, 3)}


def test_thick_slices_wait_until_the_others_are_as_coarse() -> None:
    scales = plan_scales((32, 128, 128), (5.0, 1.0, 1.0), 9)
    assert scales.strides[1:4] == ((1, 2, 2), (1, 2, 2), (2, 2, 2))
    assert scales.kernels[:4] == ((1, 3, 3), (1, 3, 3), (3, 3, 3), (3, 3, 3))


def test_a_limit_on_the_scales() -> None:
    scales = plan_scales((128, 128, 128), ISOTROPIC, 3)
    assert len(scales) == len(scales.kernels) == 3


@pytest.mark.parametrize("patch", [(16, 16, 32), (48, 80, 144), (16, 176, 208), (96, 32, 64)])
@pytest.mark.parametrize("spacing", [ISOTROPIC, (6.0, 0.8, 0.8), (1.0, 1.0, 3.0)])
def test_every_scale_is_a_whole_number_of_voxels(patch: ShapeZYX, spacing: SpacingZYX) -> None:
    """At least three scales for what a configuration allows, none shorter than 4."""
    scales = plan_scales(patch, spacing, 8)
    deepest = np.array(patch) / np.prod(scales.strides, 0)
    assert len(scales) >= 3
    assert (deepest == deepest.astype(int)).all()
    assert deepest.min() >= 4
