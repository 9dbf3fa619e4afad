"""How well a saliency map agrees with a mask, against geometry that is known."""

import numpy as np
import pytest

from model.errors import InputError
from model.explain import band_coverage, boundary_band, pointing_hit, saliency_iou

ANISOTROPIC = (5.0, 0.8, 0.8)


def ball(radius_mm: float, spacing_mm: tuple[float, float, float], side_mm: float) -> np.ndarray:
    """A sphere about the middle of a cube."""
    axes = [np.arange(0, side_mm, step) - side_mm / 2 for step in spacing_mm]
    z, y, x = np.meshgrid(*axes, indexing="ij")
    return z**2 + y**2 + x**2 <= radius_mm**2


def test_iou_by_hand() -> None:
    mask = np.zeros((1, 1, 6), np.bool_)
    mask[0, 0, 1:4] = True
    saliency = np.array([0, 0.2, 0.5, 1.0, 0.7, 0.1], np.float32).reshape(1, 1, 6)
    assert saliency_iou(saliency, mask) == pytest.approx(2 / 4)
    assert saliency_iou(saliency, mask, threshold=0.2) == pytest.approx(3 / 4)
    assert saliency_iou(mask.astype(np.float32), mask) == 1.0
    assert saliency_iou(np.zeros_like(saliency), mask) == 0.0


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), ANISOTROPIC, (2.5, 1.5, 0.7)])
def test_the_band_is_near_to_the_faces_of_the_mask(spacing: tuple[float, float, float]) -> None:
    """Every voxel against every face between a voxel of the mask and its neighbour."""
    mask = np.zeros((8, 14, 15), np.bool_)
    mask[3:5, 5:9, 6:10] = True
    mask[3, 5, 6] = False
    faces = [
        np.add(voxel, np.multiply(axis, 0.5 * sign))
        for voxel in np.argwhere(mask)
        for axis in np.eye(3)
        for sign in (1, -1)
        if not mask[tuple(np.add(voxel, sign * axis).astype(int))]
    ]
    at = np.stack(np.meshgrid(*map(np.arange, mask.shape), indexing="ij"), -1)[..., None, :]
    distance = np.sqrt((((at - np.array(faces)) * spacing) ** 2).sum(-1)).min(-1)
    np.testing.assert_array_equal(boundary_band(mask, spacing), distance <= 3.0 + 1e-9)


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (1.5, 0.75, 0.75), (2.5, 1.5, 0.7)])
def test_the_band_of_a_sphere_has_the_volume_of_a_shell(
    spacing: tuple[float, float, float],
) -> None:
    band = boundary_band(ball(15, spacing, 48), spacing, 3.0)
    shell = 4 / 3 * np.pi * (18**3 - 12**3)
    assert band.sum() * np.prod(spacing) == pytest.approx(shell, rel=0.09)


def test_thick_slices_have_their_neighbours_in_the_band() -> None:
    """The face between slices of 5 mm is 2.5 mm from both; in plane 3 mm are 4 pixels of 0.8 mm."""
    mask = np.zeros((9, 40, 40), np.bool_)
    mask[3:6, 10:30, 10:30] = True
    band = boundary_band(mask, ANISOTROPIC)
    np.testing.assert_array_equal(np.flatnonzero(band[:, 20, 20]), [2, 3, 5, 6])
    np.testing.assert_array_equal(np.flatnonzero(band[4, 20, :20]), range(6, 14))


def test_the_volumes_edge_is_no_boundary() -> None:
    mask = np.zeros((4, 4, 30), np.bool_)
    mask[:, :, :10] = True
    band = boundary_band(mask, (1.0, 1.0, 1.0))
    np.testing.assert_array_equal(np.flatnonzero(band[2, 2]), np.arange(7, 13))
    assert not boundary_band(np.zeros_like(mask), (1, 1, 1)).any()


def test_coverage_of_the_band() -> None:
    mask = np.zeros((4, 4, 30), np.bool_)
    mask[:, :, :10] = True
    half = mask.astype(np.float32)
    assert band_coverage(half, mask, (1, 1, 1)) == pytest.approx(0.5)
    assert band_coverage(half, mask, (1, 1, 1), width_mm=40) == pytest.approx(10 / 30)
    assert band_coverage(np.ones_like(half), mask, (1, 1, 1)) == 1.0
    for where, spacing in ((np.ones_like(mask), (1.0, 1.0, 1.0)), (mask, (7.0, 7.0, 7.0))):
        with pytest.raises(InputError, match="no voxel of") as refused:
            band_coverage(half, where, spacing)
        assert refused.value.code == "no_band"


def test_pointing_looks_at_the_peak_in_millimetres() -> None:
    mask = np.zeros((5, 5, 5), np.bool_)
    mask[2, 2, 2] = True
    saliency = np.full(mask.shape, 0.2, np.float32)
    saliency[3, 2, 2] = 1.0
    assert not pointing_hit(saliency, mask, ANISOTROPIC)
    assert not pointing_hit(saliency, mask, ANISOTROPIC, tolerance_mm=4.9)
    assert pointing_hit(saliency, mask, ANISOTROPIC, tolerance_mm=5.0)
    saliency[3, 2, 2], saliency[2, 2, 2] = 0.0, 1.0
    assert pointing_hit(saliency, mask, ANISOTROPIC)
    corner = np.zeros_like(mask)
    corner[0, 0, 0] = True
    assert not pointing_hit(np.zeros_like(saliency), corner, ANISOTROPIC)


def test_metrics_refuse_what_has_no_meaning() -> None:
    mask, fine = np.ones((2, 2, 2), np.bool_), np.ones((2, 2, 2), np.float32)
    for saliency, where, message in (
        (fine, ~mask, "the mask is empty"),
        (fine * 2, mask, "from 2 to 2"),
        (fine * np.float32(np.nan), mask, "normalise"),
        (fine[:1], mask, "shape"),
    ):
        with pytest.raises(InputError, match=message):
            saliency_iou(saliency, where)
    with pytest.raises(InputError, match="threshold 0"):
        saliency_iou(fine, mask, 0)
