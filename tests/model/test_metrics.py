import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.metrics import compute_average_surface_distance, compute_hausdorff_distance

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


@pytest.mark.filterwarnings("ignore:monai.metrics.utils:FutureWarning")  # of MONAI about MONAI
@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_the_distances_are_monais(seed: int) -> None:
    rng = np.random.default_rng(seed)
    masks = []
    for _ in range(2):
        low = rng.integers(1, 5, 3)
        high = low + rng.integers(2, 6, 3)
        mask = box(*zip(low, high, strict=True))
        masks.append(mask & (rng.random(mask.shape) < 0.95))
    spacing = (2.5, 0.8, 1.3)
    a, b = (torch.from_numpy(mask)[None, None].float() for mask in masks)
    theirs = compute_hausdorff_distance(a, b, percentile=95, include_background=True,
                                        spacing=spacing)  # fmt: skip
    assert hd95_mm(*masks, spacing) == pytest.approx(float(theirs), rel=1e-4)
    there, back = (
        float(compute_average_surface_distance(p, q, include_background=True, spacing=spacing))
        for p, q in ((a, b), (b, a))
    )
    mean = mean_surface_distance_mm(*masks, spacing)
    assert min(there, back) - 1e-4 <= mean <= max(there, back) + 1e-4
