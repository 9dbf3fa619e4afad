import math

import numpy as np
import pytest
import torch
from monai.metrics import (
    compute_average_surface_distance,
    compute_dice,
    compute_hausdorff_distance,
)

from model.errors import InputError
from model.metrics import dice, hd95_mm, mean_surface_distance_mm


def box(*sides: tuple[int, int]) -> np.ndarray:
    mask = np.zeros((12, 14, 16), bool)
    mask[tuple(slice(*side) for side in sides)] = True
    return mask


EMPTY = np.zeros((12, 14, 16), bool)
CUBE = box((2, 6), (2, 6), (2, 6))


def test_equal_masks() -> None:
    assert dice(CUBE, CUBE) == 1.0
    assert hd95_mm(CUBE, CUBE, (3, 2, 1)) == 0.0
    assert mean_surface_distance_mm(CUBE, CUBE, (3, 2, 1)) == 0.0


def test_empty_masks_are_defined() -> None:
    assert dice(EMPTY, EMPTY) == 1.0
    assert hd95_mm(EMPTY, EMPTY, (1, 1, 1)) == mean_surface_distance_mm(EMPTY, EMPTY, (1, 1, 1))
    assert hd95_mm(EMPTY, EMPTY, (1, 1, 1)) == 0.0
    for a, b in ((EMPTY, CUBE), (CUBE, EMPTY)):
        assert dice(a, b) == 0.0
        assert hd95_mm(a, b, (1, 1, 1)) == math.inf
        assert mean_surface_distance_mm(a, b, (1, 1, 1)) == math.inf


def test_a_known_shift() -> None:
    moved = box((2, 6), (2, 6), (4, 8))
    assert dice(CUBE, moved) == 0.5
    assert hd95_mm(CUBE, moved, (3.0, 2.0, 1.5)) == pytest.approx(3.0)


def test_single_voxels_are_as_far_as_their_centres() -> None:
    a, b = box((0, 1), (0, 1), (0, 1)), box((2, 3), (3, 4), (4, 5))
    expected = math.hypot(2 * 3.0, 3 * 2.0, 4 * 1.0)
    assert hd95_mm(a, b, (3.0, 2.0, 1.0)) == pytest.approx(expected)
    assert mean_surface_distance_mm(a, b, (3.0, 2.0, 1.0)) == pytest.approx(expected)


def test_shapes_must_agree() -> None:
    with pytest.raises(InputError):
        dice(CUBE, CUBE[1:])


def random_mask(rng: np.random.Generator) -> np.ndarray:
    """A holed block; one in six is empty."""
    low = rng.integers(1, 5, 3)
    mask = box(*zip(low, low + rng.integers(2, 6, 3), strict=True))
    return mask & (rng.random(mask.shape) < 0.95) & (rng.random() > 1 / 6)


@pytest.mark.filterwarnings("ignore:monai.metrics.utils:FutureWarning")  # of MONAI about MONAI
@pytest.mark.filterwarnings("ignore:the (prediction|ground truth) of class 0 is all 0")
@pytest.mark.parametrize("seed", range(50))
def test_agreement_is_monais(seed: int) -> None:
    rng = np.random.default_rng(seed)
    masks, spacing = (random_mask(rng), random_mask(rng)), (2.5, 0.8, 1.3)
    a, b = (torch.from_numpy(mask)[None, None].float() for mask in masks)
    overlap = compute_dice(a, b, ignore_empty=False)
    assert dice(*masks) == pytest.approx(float(overlap))
    hd95 = float(compute_hausdorff_distance(a, b, percentile=95, include_background=True,
                                            spacing=spacing))  # fmt: skip
    mean = float(compute_average_surface_distance(a, b, include_background=True, symmetric=True,
                                                  spacing=spacing))  # fmt: skip
    ours = hd95_mm(*masks, spacing), mean_surface_distance_mm(*masks, spacing)
    if all(mask.any() for mask in masks):
        assert ours == pytest.approx((hd95, mean), rel=1e-4)
    else:  # MONAI says not a number; here both empty agree, and a miss is infinitely far
        assert not math.isfinite(hd95)
        assert ours == ((math.inf,) * 2 if any(mask.any() for mask in masks) else (0, 0))
