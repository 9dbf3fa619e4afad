"""Volumes whose slices lean, as a tilted gantry makes them."""

from itertools import permutations, product

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from model.errors import GeometryError
from model.measure import measure
from model.metrics import dice
from model.nifti import read_nifti, write_nifti
from model.preprocess import largest_shape, prepare, resample_label, to_native
from model.resample import covered, reorient, resample
from model.spec import FixedIntensity, ModalitySpec, PercentileIntensity
from model.volume import Volume, lean_of, spacing_mm, straight

WORKING = [
    "".join(letters) for order in permutations(["LR", "AP", "IS"]) for letters in product(*order)
]
SHAPE = (14, 40, 44)


def leaning(
    tilt: float = 20.0,
    swivel: float = 0.0,
    spacing_xyz: tuple[float, float, float] = (1.5, 1.5, 4.0),
    angles: tuple[float, float, float] = (0.0, 0.0, 0.0),
    origin: tuple[float, float, float] = (-30.0, -40.0, 200.0),
) -> np.ndarray:
    """Slices turned by ``angles``, the stack sheared by so many degrees along y and x."""
    axes = Rotation.from_euler("xyz", angles, degrees=True).as_matrix()
    affine = np.eye(4)
    affine[:3, :3] = axes * spacing_xyz
    lean = np.tan(np.radians(tilt)) * axes[:, 1] + np.tan(np.radians(swivel)) * axes[:, 0]
    affine[:3, 2] += lean * spacing_xyz[2]
    affine[:3, 3] = origin
    return affine


def world(shape: tuple[int, int, int], affine: np.ndarray) -> np.ndarray:
    z, y, x = np.indices(shape)
    return (np.stack([x, y, z, np.ones_like(x)], axis=-1) @ affine.T)[..., :3]


def ball(shape: tuple[int, int, int], affine: np.ndarray, at: np.ndarray, radius: float):
    return np.linalg.norm(world(shape, affine) - at, axis=-1) < radius


def test_spacing_and_volume_of_a_leaning_grid() -> None:
    affine = leaning(20.0)
    volume = Volume(np.zeros((4, 5, 6), np.int16), affine, "ct")
    assert volume.spacing_mm == pytest.approx((4.0, 1.5, 1.5))
    assert volume.voxel_ml == pytest.approx(abs(np.linalg.det(affine[:3, :3])) / 1000)
    assert lean_of(affine) == pytest.approx([0.0, 4.0 * np.tan(np.radians(20)) / 1.5])
    pushed = straight(affine)
    assert lean_of(pushed) == pytest.approx([0.0, 0.0])
    assert pushed[:3, 2] == pytest.approx([0, 0, 4.0])
    assert spacing_mm(pushed) == pytest.approx(volume.spacing_mm)


def test_too_much_lean_is_no_stack() -> None:
    Volume(np.zeros((4, 5, 6)), leaning(44.0), "ct")
    with pytest.raises(GeometryError) as caught:
        Volume(np.zeros((4, 5, 6)), leaning(46.0), "ct")
    assert caught.value.code == "sheared_grid"
    assert "46 degrees" in caught.value.message


@settings(max_examples=25, deadline=None)
@given(
    st.sampled_from(WORKING),
    st.floats(-40, 40).filter(lambda tilt: abs(tilt) > 0.1),
    st.floats(-15, 15),
    st.tuples(*[st.floats(0.7, 5.0)] * 3),
    st.tuples(*[st.floats(-20, 20)] * 3),
    st.booleans(),
)
def test_a_linear_field_survives_both_ways(
    wanted: str,
    tilt: float,
    swivel: float,
    spacing: tuple[float, float, float],
    angles: tuple[float, float, float],
    onto: bool,
) -> None:
    """Linear interpolation at true places leaves such a field as it is, to 1e-3 of a mm (onto a
    finer grid: a triangle that widens for a coarser one is off by a tenth of a sample)."""
    lean = leaning(tilt, swivel, spacing, angles, origin=(0.0, 0.0, 0.0))
    _, upright = reorient(np.zeros(SHAPE, bool), straight(lean), wanted)
    steps = upright[:3, :3] / np.linalg.norm(upright[:3, :3], axis=0)
    shape = (20, 22, 24)
    target = np.eye(4)
    target[:3, :3] = steps * (5.5 if onto else 0.7)
    middle = (lean @ [*((np.array(SHAPE[::-1]) - 1) / 2), 1])[:3]
    target[:3, 3] = middle - target[:3, :3] @ ((np.array(shape[::-1]) - 1) / 2)
    source, at = (target, lean) if onto else (lean, target)
    sizes = (shape, SHAPE) if onto else (SHAPE, shape)
    slope = np.array([0.7, -0.5, 0.3])
    field = (world(sizes[0], source) @ slope).astype(np.float32)
    found = resample(field, source, at, sizes[1], outside=-500.0)
    truth = world(sizes[1], at) @ slope
    index = (world(sizes[1], at) - source[:3, 3]) @ np.linalg.inv(source[:3, :3]).T
    edge = 1.0 + np.abs(np.r_[lean_of(source), 0]).max()
    deep = ((index > edge) & (index < np.array(sizes[0][::-1]) - 1 - edge)).all(axis=-1)
    assert np.abs(found - truth)[deep].max(initial=0.0) < 1e-3
    inside = ((index > -0.5) & (index < np.array(sizes[0][::-1]) - 0.5)).all(axis=-1)
    box = covered(sizes[0], source, at, sizes[1])
    outer = np.ones(sizes[1], bool)
    outer[box] = False
    assert not inside[outer].any()
    assert (found[outer] == -500.0).all()


def test_beside_a_leaning_stack_nothing_is_seen() -> None:
    """The wedges that no slice covers are 0, and the border fades to them without a halo."""
    array = np.full((20, 40, 40), 60, np.int16)
    view = ModalitySpec(
        orientation="LPS",
        spacing_mm=(2, 2, 2),
        intensity=FixedIntensity(lo=-160, hi=240),
        patch=(16, 32, 32),
    )
    affine = leaning(25.0)
    prepared = prepare(Volume(array, affine, "ct"), view)
    index = (world(prepared.shape, prepared.affine) - affine[:3, 3]) @ np.linalg.inv(
        affine[:3, :3]
    ).T
    sides = np.array(array.shape[::-1])
    away = ((index < -1.6) | (index > sides + 0.6)).any(axis=-1)
    deep = ((index > 1) & (index < sides - 2)).all(axis=-1)
    assert away.any()
    assert not prepared.array[away].any()
    assert prepared.array[deep] == pytest.approx(220 / 400, abs=1e-4)
    assert prepared.array.max() < 220 / 400 + 1e-4
    worst = largest_shape(array.shape, affine, view)
    assert all(n <= most for n, most in zip(prepared.shape, worst, strict=True))
    mr = view.model_copy(update={"intensity": PercentileIntensity()})
    image = np.where(np.indices(array.shape)[2] < 20, 400, 900).astype(np.int16)
    assert not prepare(Volume(image, affine, "mr"), mr).array[away].any()


@settings(max_examples=20, deadline=None)
@given(
    st.sampled_from(["LPS", "RAS", "SRP", "PIL"]),
    st.floats(-40, 40),
    st.floats(-10, 10),
    st.tuples(st.floats(0.7, 2.5), st.floats(0.7, 2.5), st.floats(1.0, 6.0)),
    st.tuples(*[st.floats(-25, 25)] * 3),
)
def test_a_mask_comes_back_onto_leaning_slices(
    wanted: str,
    tilt: float,
    swivel: float,
    spacing: tuple[float, float, float],
    angles: tuple[float, float, float],
) -> None:
    affine = leaning(tilt, swivel, spacing, angles)
    middle = (affine @ [*((np.array(SHAPE[::-1]) - 1) / 2), 1])[:3]
    reach = min(n * s for n, s in zip(SHAPE[::-1], spacing, strict=True))
    mask = ball(SHAPE, affine, middle, 0.3 * reach).astype(np.uint8)
    mask[ball(SHAPE, affine, middle + 0.1 * reach, 0.15 * reach)] = 2
    view = ModalitySpec(
        orientation=wanted,
        spacing_mm=(1.0, 1.0, 1.0),
        intensity=FixedIntensity(lo=-200, hi=200),
        patch=(16, 16, 32),
    )
    prepared = prepare(Volume((mask * 100 - 100).astype(np.int16), affine, "ct"), view)
    on_grid = resample_label(mask, affine, prepared)
    scores = np.stack([on_grid == value for value in range(3)]).astype(np.float32) * 20
    back = to_native(scores, prepared)
    assert dice(back > 0, mask > 0) > 0.9
    truth = world(SHAPE, affine)[mask > 0].mean(axis=0)
    for where, place in ((on_grid, prepared.affine), (back, affine)):
        found = world(where.shape, place)[where > 0].mean(axis=0)
        assert np.linalg.norm(found - truth) < 0.5 * max(spacing)


def test_measurements_on_leaning_slices() -> None:
    """Volumes by the determinant, lengths within the slice, places in the patient."""
    affine = leaning(20.0, spacing_xyz=(1.0, 1.0, 2.0))
    shape = (30, 70, 60)
    middle = (affine @ [30, 35, 15, 1])[:3]
    mask = np.where(ball(shape, affine, middle, 12.0), 2, 0).astype(np.uint8)
    found = measure(mask, Volume(np.zeros(shape, np.int16), affine, "ct"))
    (lesion,) = found.lesions
    assert lesion.volume_ml == pytest.approx(4 / 3 * np.pi * 1.2**3, rel=0.02)
    assert lesion.long_axis_mm == pytest.approx(24.0, abs=1.5)
    assert lesion.centroid_mm == pytest.approx(middle, abs=0.1)
    one, other = map(np.array, lesion.long_axis_ends_mm)
    assert np.linalg.norm(one - other) == pytest.approx(lesion.long_axis_mm)


def test_nifti_keeps_the_shear_in_the_sform(tmp_path) -> None:
    affine = leaning(20.0, angles=(0, 0, 10))
    array = np.random.default_rng(0).integers(0, 3, (6, 7, 8)).astype(np.uint8)
    write_nifti(tmp_path / "a.nii.gz", array, affine)
    volume = read_nifti(tmp_path / "a.nii.gz", "ct")
    assert np.array_equal(volume.array, array)
    assert np.allclose(volume.affine, affine, atol=1e-4)
    image = nib.load(tmp_path / "a.nii.gz")
    assert np.allclose(image.affine, np.diag([-1, -1, 1, 1]) @ affine, atol=1e-4)
    assert int(image.header["qform_code"]) == 0
    assert np.prod(image.header.get_zooms()) == pytest.approx(abs(np.linalg.det(affine[:3, :3])))
    with pytest.raises(RuntimeError, match="orthonormal"):
        sitk.ReadImage(str(tmp_path / "a.nii.gz"))
