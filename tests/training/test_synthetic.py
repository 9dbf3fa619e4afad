import numpy as np
import pytest
from numpy.testing import assert_array_equal
from scipy import ndimage

from model.types import LIVER, MODALITIES, TUMOUR, Modality
from training.synthetic import add_tumours, head_phantom, phantom

PATCH = (32, 96, 96)
SPACING = (2.0, 2.0, 2.0)
COARSE = {"shape_zyx": (40, 80, 80), "spacing_mm": (6.0, 5.0, 5.0)}


def liver_patch(level: float = 0.65, noise: float = 0.04) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(7)
    label = np.zeros(PATCH, np.uint8)
    label[4:28, 16:84, 8:80] = LIVER
    image = np.where(label == LIVER, level, 0.1) + noise * rng.standard_normal(PATCH)
    return np.clip(image, 0, 1).astype(np.float32), label


@pytest.mark.parametrize("modality", MODALITIES)
@pytest.mark.parametrize("seed", range(12))
def test_tumours_change_only_liver_voxels_and_stay_in_range(modality: Modality, seed: int) -> None:
    image, label = liver_patch()
    grown, grown_label = add_tumours(image, label, modality, SPACING, np.random.default_rng(seed))
    assert grown.dtype == np.float32
    assert grown_label.dtype == np.uint8
    assert grown.min() >= 0
    assert grown.max() <= 1
    outside = label != LIVER
    assert_array_equal(grown[outside], image[outside])
    assert_array_equal(grown_label[outside], label[outside])
    assert set(np.unique(grown_label[~outside])) <= {LIVER, TUMOUR}


def test_tumours_leave_the_inputs_alone() -> None:
    image, label = liver_patch()
    image_before, label_before = image.copy(), label.copy()
    add_tumours(image, label, "ct", SPACING, np.random.default_rng(0))
    assert_array_equal(image, image_before)
    assert_array_equal(label, label_before)


@pytest.mark.parametrize("modality", MODALITIES)
def test_tumours_are_determined_by_the_generator(modality: Modality) -> None:
    image, label = liver_patch()
    runs = [
        add_tumours(image, label, modality, SPACING, np.random.default_rng(s)) for s in (3, 3, 4)
    ]
    assert_array_equal(runs[0][0], runs[1][0])
    assert_array_equal(runs[0][1], runs[1][1])
    assert not np.array_equal(runs[0][0], runs[2][0])


@pytest.mark.parametrize("modality", MODALITIES)
def test_most_draws_give_a_lesion_that_differs_from_the_liver(modality: Modality) -> None:
    image, label = liver_patch(level=0.65 if modality == "ct" else 0.3, noise=0.02)
    contrasts = []
    for seed in range(40):
        grown, new = add_tumours(image, label, modality, SPACING, np.random.default_rng(seed))
        if (new == TUMOUR).any():
            contrasts.append(float(grown[new == TUMOUR].mean() - image[label == LIVER].mean()))
    assert len(contrasts) >= 30
    assert np.mean(np.abs(contrasts) > 0.03) > 0.8
    assert min(contrasts) < 0 < max(contrasts)
    if modality == "ct":
        assert np.mean(np.array(contrasts) < 0) > 0.7


def test_max_count_bounds_the_number_of_lesions() -> None:
    image, label = liver_patch()
    for seed in range(10):
        _, new = add_tumours(image, label, "ct", SPACING, np.random.default_rng(seed), max_count=1)
        sizes = np.bincount(ndimage.label(new == TUMOUR)[0].ravel())[1:]
        assert (sizes > 8).sum() <= 1  # an irregular outline may shed a few voxels


def test_lesions_scale_with_the_spacing() -> None:
    image, label = liver_patch()

    def volume(spacing: tuple[float, float, float]) -> float:
        grown = [
            add_tumours(image, label, "ct", spacing, np.random.default_rng(s))[1] for s in range(15)
        ]
        return float(np.mean([(g == TUMOUR).sum() for g in grown]))

    assert volume((1.0, 1.0, 1.0)) > 2 * volume((3.0, 3.0, 3.0))


def test_an_existing_tumour_is_kept() -> None:
    image, label = liver_patch()
    label[10:14, 30:40, 30:40] = TUMOUR
    grown, new = add_tumours(image, label, "mr", SPACING, np.random.default_rng(1))
    assert (new[label == TUMOUR] == TUMOUR).all()
    assert_array_equal(grown[label == TUMOUR], image[label == TUMOUR])


def test_without_liver_nothing_changes() -> None:
    image = np.full(PATCH, 0.4, np.float32)
    label = np.zeros(PATCH, np.uint8)
    grown, new = add_tumours(image, label, "ct", SPACING, np.random.default_rng(0))
    assert_array_equal(grown, image)
    assert_array_equal(new, label)


@pytest.mark.parametrize("level", [0.0, 1.0])
@pytest.mark.parametrize("modality", MODALITIES)
def test_a_liver_at_the_end_of_the_range_stays_finite(modality: Modality, level: float) -> None:
    image, label = liver_patch(level=level, noise=0.0)
    for seed in range(5):
        grown, _ = add_tumours(image, label, modality, SPACING, np.random.default_rng(seed))
        assert np.isfinite(grown).all()
        assert 0 <= grown.min() <= grown.max() <= 1


def test_thin_livers_and_thick_slices_do_not_fail() -> None:
    image, label = liver_patch()
    for seed in range(10):
        rng = np.random.default_rng(seed)
        grown, marked = add_tumours(image[15:16], label[15:16], "mr", (9.0, 0.6, 0.6), rng)
        assert 0 <= grown.min() <= grown.max() <= 1
        np.testing.assert_array_equal(marked > 0, label[15:16] > 0)


def test_a_lesion_where_an_earlier_one_took_all_liver_is_left_out() -> None:
    """Specks of liver far apart: a second lesion on the same speck finds none around it."""
    label = np.zeros(PATCH, np.uint8)
    label[8:24:8, 8:88:8, 8:88:8] = LIVER
    image = np.where(label == LIVER, 0.6, 0.1).astype(np.float32)
    for seed in range(500):
        rng = np.random.default_rng(seed)
        grown, grown_label = add_tumours(image, label, "ct", (8.0, 8.0, 8.0), rng)
        assert np.isfinite(grown).all()
        assert (grown_label == TUMOUR).any()


def test_shapes_that_differ_are_refused() -> None:
    image, label = liver_patch()
    with pytest.raises(ValueError, match="differ in shape"):
        add_tumours(image, label[1:], "ct", SPACING, np.random.default_rng(0))


@pytest.mark.parametrize("modality", MODALITIES)
@pytest.mark.parametrize("seed", range(4))
def test_phantom_is_a_plausible_abdomen(modality: Modality, seed: int) -> None:
    volume, mask = phantom(modality, np.random.default_rng(seed), **COARSE)
    assert volume.modality == modality
    assert volume.array.dtype == (np.int16 if modality == "ct" else np.uint16)
    assert volume.array.shape == mask.shape == COARSE["shape_zyx"]
    assert volume.spacing_mm == pytest.approx(COARSE["spacing_mm"])
    assert mask.dtype == np.uint8
    assert set(np.unique(mask)) == {0, LIVER, TUMOUR}
    assert 800 < (mask > 0).sum() * volume.voxel_ml < 2800


@pytest.mark.parametrize("modality", MODALITIES)
def test_phantom_liver_is_one_organ_on_the_patients_right(modality: Modality) -> None:
    volume, mask = phantom(modality, np.random.default_rng(5), **COARSE)
    liver = mask > 0
    z, y, x = np.nonzero(liver)
    world = volume.affine @ np.stack([x, y, z, np.ones_like(x)]).astype(float)
    assert world[0].mean() < -20  # LPS: x grows to the left
    assert np.mean(world[0] < 0) > 0.75
    sizes = np.bincount(ndimage.label(liver)[0].ravel())[1:]
    assert sizes.max() > 0.97 * sizes.sum()


def test_phantom_tumours_lie_in_the_liver() -> None:
    seed = np.random.default_rng(8)
    _, mask = phantom("ct", seed, **COARSE)
    filled = ndimage.binary_closing(mask > 0, iterations=2)
    surrounded = ndimage.binary_dilation(mask == TUMOUR) & (mask == LIVER)
    assert filled[mask == TUMOUR].all()
    assert surrounded.any()


def test_phantom_without_tumours_is_healthy() -> None:
    _, mask = phantom("mr", np.random.default_rng(2), max_tumours=0, **COARSE)
    assert set(np.unique(mask)) == {0, LIVER}


def test_ct_phantom_has_air_fat_soft_tissue_and_bone_in_hounsfield_units() -> None:
    volume, mask = phantom("ct", np.random.default_rng(3), **COARSE)
    assert volume.array.min() >= -1024
    assert np.median(volume.array[:, 0]) == pytest.approx(-1000, abs=30)
    assert 30 < np.median(volume.array[mask == LIVER]) < 140
    assert (volume.array > 350).mean() > 0.001
    assert ((volume.array > -140) & (volume.array < -60)).mean() > 0.03


@pytest.mark.parametrize("modality", MODALITIES)
def test_phantom_is_determined_by_the_generator(modality: Modality) -> None:
    first, second, other = (
        phantom(modality, np.random.default_rng(s), **COARSE) for s in (1, 1, 2)
    )
    assert_array_equal(first[0].array, second[0].array)
    assert_array_equal(first[1], second[1])
    assert not np.array_equal(first[0].array, other[0].array)


def test_phantom_takes_small_and_anisotropic_grids() -> None:
    for shape, spacing in (((12, 40, 56), (8.0, 1.5, 1.0)), ((5, 24, 24), (5.0, 16.0, 16.0))):
        volume, mask = phantom("mr", np.random.default_rng(0), shape_zyx=shape, spacing_mm=spacing)
        assert volume.shape == mask.shape == shape


@pytest.mark.parametrize("modality", MODALITIES)
def test_head_phantom_is_a_head_in_air(modality: Modality) -> None:
    volume = head_phantom(np.random.default_rng(0), modality)
    again = head_phantom(np.random.default_rng(0), modality)
    assert_array_equal(volume.array, again.array)
    z, y, x = (n // 2 for n in volume.shape)
    corner, brain = volume.array[:, :6, :6], volume.array[z, y - 5 : y + 5, x + 15 : x + 22]
    assert np.median(brain) > 2 * abs(np.median(corner)) or np.median(corner) < -900
    if modality == "ct":
        assert 15 < np.median(brain) < 60
