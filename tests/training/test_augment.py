from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from model.spec import FixedIntensity, ModalitySpec
from model.types import LIVER, MODALITIES, TUMOUR, ShapeZYX, SpacingZYX
from training.augment import Augment, Draw
from training.config import AugmentConfig
from training.sample import Quality, Sample

PATCH: ShapeZYX = (16, 32, 48)
STILL: dict[str, Any] = {
    "foreground": 0, "flip_axes": (), "rotate90": False, "shift_intensity": 0,
}  # fmt: skip


def spec(patch: ShapeZYX = PATCH, spacing_mm: SpacingZYX = (1, 1, 1)) -> ModalitySpec:
    intensity = FixedIntensity(lo=0, hi=1)
    return ModalitySpec(orientation="RAS", spacing_mm=spacing_mm, intensity=intensity, patch=patch)


def sample(
    image: np.ndarray,
    label: np.ndarray | None = None,
    *,
    spacing_mm: SpacingZYX = (1, 1, 1),
    quality: Quality = "full",
) -> Sample:
    label = np.zeros(image.shape, np.uint8) if label is None else label.astype(np.uint8)
    return Sample("ct/x", "ct", quality, image.astype(np.float16), label, spacing_mm)


def noise(shape: ShapeZYX, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random(shape).astype(np.float16)


def ball(shape: ShapeZYX, radii: SpacingZYX) -> np.ndarray:
    """An ellipsoid in the middle, radii in voxels."""
    axes = [(np.arange(n) - (n - 1) / 2) / r for n, r in zip(shape, radii, strict=True)]
    z, y, x = np.meshgrid(*axes, indexing="ij")
    return z**2 + y**2 + x**2 <= 1


def draws(augment: Augment, case: Sample, count: int, **options: bool) -> list[Draw]:
    return [augment(case, np.random.default_rng(seed), **options) for seed in range(count)]


def spread_mm(mask: np.ndarray, spacing_mm: SpacingZYX) -> np.ndarray:
    """Standard deviation of a mask's voxels along z, y, x, in mm."""
    return np.argwhere(mask).std(axis=0) * spacing_mm


def windows(image: np.ndarray) -> np.ndarray:
    return np.lib.stride_tricks.sliding_window_view(image, PATCH)


@pytest.mark.parametrize("spacing_mm", [(1, 1, 1), (4.9, 2.35, 0.07), (49, 49, 49)])
def test_identity_configuration_gives_the_exact_crop(spacing_mm: SpacingZYX) -> None:
    image = noise((19, 36, 50))
    augment = Augment(AugmentConfig(**STILL), spec(spacing_mm=spacing_mm), "ct")
    places = set()
    for draw in draws(augment, sample(image, image > 0.5, spacing_mm=spacing_mm), 10):
        hits = np.argwhere(
            (windows(image)[..., :2, :2, :2] == draw.image[:2, :2, :2]).all((3, 4, 5))
        )
        z, y, x = hits[0]
        crop = image[z : z + PATCH[0], y : y + PATCH[1], x : x + PATCH[2]]
        assert_array_equal(draw.image, crop)
        assert_array_equal(draw.label, crop > 0.5)
        places.add((z, y, x))
    assert len(places) > 3


def test_a_volume_as_large_as_the_patch_comes_whole() -> None:
    """Rounding of the spacing must not push the outermost voxels outside."""
    image = noise(PATCH)
    case = sample(image, np.ones(PATCH), spacing_mm=(49, 0.7, 2.4))
    draw = draws(Augment(AugmentConfig(**STILL), spec(spacing_mm=(49, 0.7, 2.4)), "ct"), case, 1)[0]
    assert_array_equal(draw.image, image)
    assert draw.label.all()


@pytest.mark.parametrize("shape", [(16, 32, 48), (20, 40, 60), (8, 20, 30)])
@pytest.mark.parametrize("modality", MODALITIES)
def test_draws_have_the_patch_shape_and_range(shape: ShapeZYX, modality: str) -> None:
    busy = AugmentConfig(
        rotate_degrees=20, scale=0.3, shift_intensity=0.3, contrast=0.5, noise=0.1, blur=1,
        bias_field=0.5, remap=0.5,
    )  # fmt: skip
    for draw in draws(
        Augment(busy, spec(), modality), sample(noise(shape), ball(shape, (3, 8, 9))), 6
    ):
        assert draw.image.shape == draw.label.shape == PATCH
        assert (draw.image.dtype, draw.label.dtype) == (np.float32, np.uint8)
        assert draw.image.min() >= 0
        assert draw.image.max() <= 1


def test_geometry_moves_label_and_image_alike() -> None:
    """The label is the image; flips and quarter turns hit voxel centres exactly."""
    mask = noise((20, 40, 60)) > 0.5
    config = AugmentConfig(shift_intensity=0)
    kinds = set()
    for draw in draws(Augment(config, spec(), "ct"), sample(mask, mask), 20):
        assert_array_equal(draw.image, draw.label)
        kinds.add(draw.image.tobytes())
    assert len(kinds) == 20


def test_free_rotation_and_zoom_move_label_and_image_alike() -> None:
    mask = ball((24, 48, 64), (8, 12, 20))
    config = AugmentConfig(foreground=1, rotate_degrees=20, scale=0.3, shift_intensity=0)
    for draw in draws(Augment(config, spec(), "ct"), sample(mask, mask), 12):
        overlap = 2 * (draw.label * (draw.image >= 0.5)).sum()
        assert overlap / (draw.label.sum() + (draw.image >= 0.5).sum()) > 0.98


def ramp_signs(config: AugmentConfig, count: int = 40) -> set[tuple[int, ...]]:
    """Which way three ramps, one per axis, run in the patches."""
    shape = (PATCH[0], 48, 48)
    ramp = sum(w * g for w, g in zip((1, 4, 9), np.indices(shape) / 48, strict=True)) / 16
    augment = Augment(config, spec((16, 48, 48)), "ct")
    found = (draw.image for draw in draws(augment, sample(ramp), count))
    return {
        tuple(np.sign([np.diff(i, axis=a).mean() for a in range(3)]).astype(int)) for i in found
    }


def test_flips_never_happen_without_flip_axes() -> None:
    assert ramp_signs(AugmentConfig(**STILL)) == {(1, 1, 1)}


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_flips_happen_along_the_named_axis_only(axis: int) -> None:
    flipped = [1, 1, 1]
    flipped[axis] = -1
    found = ramp_signs(AugmentConfig(**{**STILL, "flip_axes": (axis,)}))
    assert found == {(1, 1, 1), tuple(flipped)}


def test_quarter_turns_stay_in_the_slice() -> None:
    found = ramp_signs(AugmentConfig(**{**STILL, "rotate90": True}))
    assert found == {(1, a, b) for a in (-1, 1) for b in (-1, 1)}


@pytest.mark.parametrize(
    ("from_mm", "to_mm", "patch"),
    [
        ((3.0, 2.4, 2.4), (4.5, 2.4, 2.4), (32, 48, 48)),
        ((2.0, 1.0, 1.5), (3.0, 2.0, 2.0), (32, 48, 48)),
        ((2.0, 2.0, 2.0), (2.0, 1.0, 2.0), (32, 96, 48)),
    ],
)
@pytest.mark.parametrize("turning", [False, True])
def test_a_ball_stays_a_ball_in_mm(
    from_mm: SpacingZYX, to_mm: SpacingZYX, patch: ShapeZYX, turning: bool
) -> None:
    """The patch's spacing may differ from the sample's, and from axis to axis."""
    radius = 20.0
    mask = ball((32, 48, 48), tuple(radius / s for s in from_mm))
    geometry = {"rotate90": turning, "rotate_degrees": 20.0 * turning, "flip_axes": (0, 1, 2)}
    config = AugmentConfig(**{**STILL, **geometry, "foreground": 0})
    augment = Augment(config, spec(patch, to_mm), "ct")
    for draw in draws(augment, sample(mask, mask, spacing_mm=from_mm), 4):
        assert_allclose(spread_mm(draw.label == 1, to_mm), radius / 5**0.5, rtol=0.06)


def test_rotations_keep_lengths_in_mm() -> None:
    """A rod across voxels of 3 x 1 x 1 mm turns mostly about the body's long axis."""
    spacing_mm = (3.0, 1.0, 1.0)
    rod = ball((16, 96, 96), (2, 4, 30))
    config = AugmentConfig(**{**STILL, "rotate_degrees": 40})
    tilts = []
    for draw in draws(Augment(config, spec((16, 96, 96), spacing_mm), "ct"),
                      sample(rod, rod, spacing_mm=spacing_mm), 12):  # fmt: skip
        points = np.argwhere(draw.label) * spacing_mm
        values, vectors = np.linalg.eigh(np.cov(points.T))
        assert values[-1] ** 0.5 == pytest.approx(30 / 5**0.5, rel=0.04)
        tilts.append(np.degrees(np.arcsin(np.abs(vectors[:2, -1]))))
    in_slice, out_of_slice = np.mean(tilts, axis=0)[::-1]
    assert in_slice > out_of_slice > 0.5
    assert in_slice > 5


def test_zoom_scales_the_sizes() -> None:
    mask = ball((32, 64, 64), (8, 8, 8))
    config = AugmentConfig(**{**STILL, "scale": 0.3})
    found = draws(Augment(config, spec((32, 64, 64)), "ct"), sample(mask, mask), 20)
    sizes = np.array([np.cbrt(draw.label.sum() / mask.sum()) for draw in found])
    assert sizes.min() < 0.9
    assert sizes.max() > 1.1
    assert (np.abs(np.log(sizes)) < 0.3 + 0.3).all()


def test_foreground_patches_hold_liver_and_often_tumour() -> None:
    label = np.zeros((64, 128, 160), np.uint8)
    label[5:8, 100:104, 20:24] = LIVER
    label[50:52, 10:12, 150:152] = TUMOUR
    augment = Augment(AugmentConfig(**{**STILL, "foreground": 1}), spec(), "ct")
    found = draws(augment, sample(noise(label.shape), label), 40)
    assert all(draw.label.any() for draw in found)
    share = np.mean([TUMOUR in draw.label for draw in found])
    assert 0.25 < share < 0.75


def test_patches_of_a_case_without_liver_fall_anywhere() -> None:
    augment = Augment(AugmentConfig(**{**STILL, "foreground": 1}), spec(), "ct")
    images = {d.image.tobytes() for d in draws(augment, sample(noise((40, 64, 96))), 5)}
    assert len(images) == 5


def test_intensity_shift_leaves_air_alone() -> None:
    image = np.where(ball(PATCH, (6, 12, 20)), 0.5, 0.0)
    augment = Augment(AugmentConfig(**{**STILL, "shift_intensity": 0.2}), spec(), "ct")
    found = draws(augment, sample(image), 10)
    assert all((d.image[image == 0] == 0).all() for d in found)
    levels = [d.image[image > 0][0] for d in found]
    assert np.ptp(levels) > 0.05
    assert all(0.2 <= level <= 0.8 for level in levels)


def test_contrast_keeps_black_white_and_the_order() -> None:
    ramp = np.broadcast_to(np.linspace(0, 1, PATCH[2]), PATCH)
    augment = Augment(AugmentConfig(**{**STILL, "contrast": 0.5}), spec(), "ct")
    for draw in draws(augment, sample(ramp), 6):
        assert_array_equal(draw.image[..., 0], 0)
        assert_array_equal(draw.image[..., -1], 1)
        assert (np.diff(draw.image) > 0).all()


def test_mr_contrasts_are_not_for_ct() -> None:
    config = AugmentConfig(**{**STILL, "remap": 1, "bias_field": 0.5})
    image = noise(PATCH)
    ct = Augment(config, spec(), "ct")(sample(image), np.random.default_rng(0))
    mr = Augment(config, spec(), "mr")(sample(image), np.random.default_rng(0))
    assert_array_equal(ct.image, image)
    assert np.abs(mr.image - image).max() > 0.05


def test_borrowed_ct_wears_another_contrast() -> None:
    """The curve is one per draw: equal voxels stay equal, air stays black, labels stay."""
    image = np.where(noise(PATCH) > 0.5, 0.75, 0.0)
    image[:, :16] *= 0.5
    case = replace(sample(image, image > 0), borrowed=True)
    augment = Augment(AugmentConfig(**STILL), spec(), "mr")
    for draw in draws(augment, case, 8):
        assert (draw.image[image == 0] == 0).all()
        assert all(np.ptp(draw.image[image == level]) == 0 for level in (0.375, 0.75))
        assert_array_equal(draw.label, image > 0)
    levels = {float(d.image[image == 0.75][0]) for d in draws(augment, case, 8)}
    assert len(levels) == 8


def test_the_same_generator_gives_the_same_draw() -> None:
    config = AugmentConfig(
        rotate_degrees=10, scale=0.2, contrast=0.3, noise=0.1, blur=1, bias_field=0.3, remap=0.5,
        synthetic_tumours=1,
    )  # fmt: skip
    label = ball((24, 48, 64), (9, 18, 24))
    case = sample(0.1 + 0.5 * label, label, quality="healthy")
    augment = Augment(config, spec(), "mr")
    for first, second in zip(draws(augment, case, 8), draws(augment, case, 8), strict=True):
        assert_array_equal(first.image, second.image)
        assert_array_equal(first.label, second.label)


@pytest.mark.parametrize("quality", ["full", "merged", "healthy", "pseudo"])
def test_tumours_grow_where_no_label_denies_them(quality: Quality) -> None:
    """A full label knows its tumours; a grown one beside an unlabelled one is right in others."""
    label = ball((24, 48, 64), (9, 18, 24))
    case = sample(0.2 + 0.4 * label, label, quality=quality, spacing_mm=(3, 3, 3))
    config = AugmentConfig(**{**STILL, "synthetic_tumours": 1})
    found = draws(Augment(config, spec(spacing_mm=(3, 3, 3)), "ct"), case, 6)
    grown = [draw for draw in found if TUMOUR in draw.label]
    assert bool(grown) is (quality != "full")
    assert {draw.quality for draw in found} == {quality}
    assert set(np.unique(case.label)) == {0, 1}


def test_no_tumours_grow_unasked() -> None:
    label = ball((24, 48, 64), (9, 18, 24))
    augment = Augment(AugmentConfig(**STILL), spec(), "ct")
    found = draws(augment, sample(0.6 * label, label, quality="merged"), 5)
    assert not any(TUMOUR in draw.label for draw in found)
