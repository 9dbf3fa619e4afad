from itertools import permutations, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from scipy.spatial.transform import Rotation

from model.errors import GeometryError, InputError, InputTooLargeError
from model.metrics import dice
from model.nifti import read_nifti
from model.preprocess import prepare, resample_label, to_native
from model.resample import covered, oriented_axes, reorient, resample
from model.spec import FixedIntensity, ModalitySpec, ModelSpec, PercentileIntensity
from model.volume import Volume

ORIENTATIONS = [
    "".join(letters) for order in permutations(["LR", "AP", "IS"]) for letters in product(*order)
]


def affine_of(angles: tuple[float, float, float], spacing: tuple[float, ...]) -> np.ndarray:
    affine = np.eye(4)
    affine[:3, :3] = Rotation.from_euler("xyz", angles, degrees=True).as_matrix() * spacing
    affine[:3, 3] = [11.0, -7.0, 310.0]
    return affine


def centroid_mm(mask: np.ndarray, affine: np.ndarray) -> np.ndarray:
    return (affine @ [*np.argwhere(mask).mean(axis=0)[::-1], 1])[:3]


def test_there_are_48_orientations() -> None:
    assert len(set(ORIENTATIONS)) == 48


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_reorienting_moves_no_voxel(orientation: str) -> None:
    array = np.random.default_rng(1).integers(0, 99, (3, 4, 5))
    affine = affine_of((8, -12, 20), (1.0, 2.0, 3.0))
    turned, place = reorient(array, affine, orientation)
    assert np.shares_memory(turned, array)
    for index in np.ndindex(turned.shape):
        x, y, z, _ = np.linalg.inv(affine) @ place @ [*index[::-1], 1]
        assert turned[index] == array[round(z), round(y), round(x)]
    axes = place[:3, :3] / np.linalg.norm(place[:3, :3], axis=0)
    named = {"L": (0, 1), "R": (0, -1), "P": (1, 1), "A": (1, -1), "S": (2, 1), "I": (2, -1)}
    assert all(axes[named[o][0], k] * named[o][1] > 0.7 for k, o in enumerate(orientation))


@settings(max_examples=25, deadline=None)
@given(
    st.sampled_from(ORIENTATIONS),
    st.sampled_from(ORIENTATIONS),
    st.tuples(*[st.floats(0.5, 4.0)] * 3),
    st.tuples(*[st.floats(-25, 25)] * 3),
    st.tuples(*[st.integers(0, 6)] * 3),
)
def test_a_mask_comes_back_in_the_same_place(
    stored: str,
    wanted: str,
    spacing: tuple[float, float, float],
    angles: tuple[float, float, float],
    corner: tuple[int, int, int],
) -> None:
    """Any storage, any working orientation, oblique, anisotropic: where it was, within a voxel."""
    mask = np.zeros((19, 23, 27), np.uint8)
    z, y, x = corner
    mask[z : z + 7, y : y + 9, x : x + 12] = 1
    mask[z : z + 3, y : y + 4, x : x + 5] = 2
    array, affine = reorient(mask * 100 - 100, affine_of(angles, spacing), stored)
    label, _ = reorient(mask, affine_of(angles, spacing), stored)
    view = ModalitySpec(
        orientation=wanted,
        spacing_mm=(1.5, 1.5, 1.5),
        intensity=FixedIntensity(lo=-200, hi=200),
        patch=(16, 16, 32),
    )
    prepared = prepare(Volume(array.astype(np.int16), affine, "ct"), view)
    on_grid = resample_label(np.ascontiguousarray(label), affine, prepared)
    scores = np.stack([on_grid == value for value in range(3)]).astype(np.float32) * 20
    back = to_native(scores, prepared)
    assert back.shape == label.shape
    voxel = max(*spacing, 1.5)
    for where in (on_grid, prepared.affine), (back, affine):
        moved = centroid_mm(where[0] > 0, where[1]) - centroid_mm(label > 0, affine)
        assert np.linalg.norm(moved) < voxel


def test_same_grid_gives_the_same_values() -> None:
    array = np.random.default_rng(0).normal(size=(6, 7, 8)).astype(np.float32)
    affine = affine_of((5, 6, 7), (1, 2, 3))
    np.testing.assert_allclose(resample(array, affine, affine, (6, 7, 8)), array, atol=1e-5)


def test_a_finer_grid_interpolates_linearly() -> None:
    array = np.random.default_rng(0).normal(size=(6, 7, 8)).astype(np.float32)
    affine, finer = np.eye(4), np.diag([0.5, 0.4, 0.3, 1.0])
    result = resample(array, affine, finer, (12, 11, 10))
    at = np.meshgrid(np.arange(12) * 0.3, np.arange(11) * 0.4, np.arange(10) * 0.5, indexing="ij")
    np.testing.assert_allclose(result, ndimage.map_coordinates(array, at, order=1), atol=1e-5)


def test_a_coarser_grid_averages() -> None:
    """Constants stay, ramps stay, and white noise shrinks as its samples add up."""
    affine, coarse = np.eye(4), np.diag([3.0, 3.0, 3.0, 1.0])
    coarse[:3, 3] = 1.0
    ramp = np.broadcast_to(np.arange(60, dtype=np.float32), (60, 60, 60))
    result = resample(ramp, affine, coarse, (20, 20, 20))
    np.testing.assert_allclose(result[5, 5, 2:-2], 1 + 3 * np.arange(2, 18), rtol=1e-5)
    noise = np.random.default_rng(0).normal(size=(60, 60, 60))
    assert resample(noise, affine, coarse, (20, 20, 20)).std() < 0.2


def test_outside_the_source_is_zero_and_not_covered() -> None:
    array = np.full((4, 4, 4), 5.0, np.float32)
    wide = np.eye(4)
    wide[:3, 3] = -2.0
    box = covered((4, 4, 4), np.eye(4), wide, (8, 8, 8))
    assert box == (slice(2, 6), slice(2, 6), slice(2, 6))
    result = resample(array, np.eye(4), wide, (8, 8, 8))
    assert result[box].min() == 5.0
    assert result.sum() == 5.0 * 64


def test_a_grid_that_misses_the_source_is_all_zero() -> None:
    away = np.eye(4)
    away[0, 3] = 100.0
    assert not resample(np.ones((4, 4, 4)), np.eye(4), away, (4, 4, 4)).any()


def test_grids_that_are_not_parallel_are_refused() -> None:
    with pytest.raises(GeometryError):
        resample(np.ones((4, 4, 4)), np.eye(4), affine_of((0, 0, 5), (1, 1, 1)), (4, 4, 4))


def test_oblique_axes_go_to_the_nearest() -> None:
    sources, axes = oriented_axes(affine_of((0, 0, 40), (1, 1, 1)), "LPS")
    assert sources == (0, 1, 2)
    np.testing.assert_allclose(axes, affine_of((0, 0, 40), (1, 1, 1))[:3, :3], atol=1e-12)


def test_prepared_ct_is_windowed_cropped_and_padded(phantom, spec: ModelSpec) -> None:
    prepared = prepare(phantom.volume, spec.modalities["ct"])
    assert prepared.array.dtype == np.float32
    assert prepared.array.min() == 0.0
    assert prepared.array.max() <= 1.0
    assert all(n % 16 == 0 and n >= p for n, p in zip(prepared.shape, (32, 48, 48), strict=True))
    label = resample_label(phantom.mask, phantom.volume.affine, prepared)
    deep = ndimage.binary_erosion(label == 1, iterations=2)
    assert prepared.array[deep].mean() == pytest.approx((90 + 16) / 192, abs=0.01)


def test_padding_counts_as_air(phantom, spec: ModelSpec) -> None:
    """Scanners fill the corners with -3024, -2000 or so: the picture must not depend on it."""
    array = phantom.volume.array.copy()
    array[array < -900] = -1024
    deep = array.copy()
    deep[array < -900] = -3024
    first, second = (
        prepare(Volume(a, phantom.volume.affine, "ct"), spec.modalities["ct"]).array
        for a in (array, deep)
    )
    np.testing.assert_array_equal(first, second)


def test_the_table_is_left_out() -> None:
    array = np.full((40, 120, 120), -1000, np.int16)
    array[:, 20:70, 20:90] = 50
    array[:, 110:113, :] = 60
    volume = Volume(array, np.eye(4), "ct")
    view = ModalitySpec(
        orientation="LPS",
        spacing_mm=(1, 1, 1),
        intensity=FixedIntensity(lo=-16, hi=176),
        patch=(32, 48, 48),
    )
    prepared = prepare(volume, view)
    assert prepared.shape == (48, 64, 80)


@pytest.mark.parametrize("scale", [1.0, 700.0])
def test_mr_intensities_have_no_unit(phantom, spec: ModelSpec, scale: float) -> None:
    base = np.clip(phantom.volume.array + 40.0, 0, None)
    one, other = (
        prepare(Volume((base * s).astype(np.float32), phantom.volume.affine, "mr"),
                spec.modalities["mr"]).array
        for s in (1.0, scale)
    )  # fmt: skip
    np.testing.assert_allclose(one, other, atol=1e-4)
    assert 0.3 < one[one > 0].mean() < 0.9


@pytest.mark.parametrize("fill", [0, -1000, 40])
def test_a_volume_of_one_value_is_prepared(fill: int, spec: ModelSpec) -> None:
    volume = Volume(np.full((3, 8, 8), fill, np.int16), np.eye(4), "mr")
    for modality in ("ct", "mr"):
        array = prepare(volume, spec.modalities[modality]).array
        assert array.shape == (32, 48, 48)
        assert np.isfinite(array).all()


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_non_finite_voxels_are_refused(phantom, spec: ModelSpec, value: float) -> None:
    array = phantom.volume.array.astype(np.float32)
    array[20:24, 40:44, 40:44] = value
    with pytest.raises(InputError) as caught:
        prepare(Volume(array, phantom.volume.affine, "ct"), spec.modalities["ct"])
    assert caught.value.code == "non_finite_voxels"


def test_a_body_of_many_metres_is_refused(spec: ModelSpec) -> None:
    volume = Volume(np.ones((4, 600, 600), np.int16), np.diag([9.0, 9.0, 900.0, 1.0]), "ct")
    with pytest.raises(InputTooLargeError):
        prepare(volume, spec.modalities["ct"])


def test_percentiles_of_an_empty_foreground() -> None:
    view = ModalitySpec(
        orientation="RAS",
        spacing_mm=(1, 1, 1),
        intensity=PercentileIntensity(),
        patch=(16, 16, 32),
    )
    assert not prepare(Volume(np.zeros((5, 5, 5)), np.eye(4), "mr"), view).array.any()


def test_no_foreground_gives_an_empty_native_mask(phantom, spec: ModelSpec) -> None:
    prepared = prepare(phantom.volume, spec.modalities["ct"])
    scores = np.zeros((3, *prepared.shape), np.float32)
    assert not to_native(scores, prepared).any()
    nothing = np.zeros_like(phantom.mask)
    assert not resample_label(nothing, phantom.volume.affine, prepared).any()


@pytest.mark.parametrize(
    "case", ["ct/lits_000_liveronly", "mr/chaos_t2spir_21", "mr/chaos_t1_inphase_10"]
)
def test_real_labels_survive_the_way_there_and_back(data_dir, spec: ModelSpec, case: str) -> None:
    modality = "ct" if case.startswith("ct") else "mr"
    volume = read_nifti(data_dir / case / "image.nii.gz", modality)
    label = read_nifti(data_dir / case / "label.nii.gz", modality)
    prepared = prepare(volume, spec.modalities[modality])
    on_grid = resample_label(label.array.astype(np.uint8), label.affine, prepared)
    scores = np.stack([on_grid == value for value in range(3)]).astype(np.float32) * 20
    assert dice(to_native(scores, prepared) > 0, label.array > 0) > 0.99
    liver = prepared.array[on_grid == 1]
    assert 0.02 < np.percentile(liver, 5) < np.percentile(liver, 95) < 1.0


def test_the_region_of_interest_changes_nothing(phantom, spec: ModelSpec) -> None:
    """Boxed and slab by slab against the plain way: every class on the whole native grid."""
    prepared = prepare(phantom.volume, spec.modalities["ct"])
    rng = np.random.default_rng(3)
    coarse = rng.normal(0, 4, (3, *(n // 8 for n in prepared.shape)))
    scores = ndimage.zoom(coarse, (1, 8, 8, 8), order=1).astype(np.float32)
    scores[0, : prepared.shape[0] // 2] += 30
    shares = np.exp(scores - scores.max(axis=0))
    shares /= shares.sum(axis=0)
    native = [
        resample(s, prepared.affine, prepared.native_affine, prepared.native_shape) for s in shares
    ]
    np.testing.assert_array_equal(to_native(scores, prepared), np.argmax(native, axis=0))
