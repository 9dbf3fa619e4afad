import numpy as np
import pytest
from sitk_bridge import to_sitk

from model.errors import GeometryError
from model.volume import Volume, spacing_mm


def test_spacing_and_voxel_volume() -> None:
    volume = Volume(np.zeros((4, 5, 6), np.int16), np.diag([1.0, 2.0, 3.0, 1.0]), "ct")
    assert volume.spacing_mm == (3.0, 2.0, 1.0)
    assert volume.voxel_ml == pytest.approx(0.006)
    assert volume.shape == (4, 5, 6)


@pytest.mark.parametrize(
    ("shape", "matrix", "code"),
    [
        ((4, 5), np.eye(3), "not_3d"),
        ((4, 5, 6, 2), np.eye(3), "not_3d"),
        ((4, 5, 6), np.diag([1.0, 0.0, 1.0]), "invalid_spacing"),
        ((4, 5, 6), np.diag([1.0, np.nan, 1.0]), "invalid_spacing"),
        ((4, 5, 6), np.diag([1.0, 1.0, 32768.0]), "invalid_spacing"),
        ((4, 5, 6), np.diag([1.0, 1e-30, 1.0]), "invalid_spacing"),
        ((4, 5, 6), np.array([[1, 0.01, 0], [0, 1, 0], [0, 0, 1.0]]), "sheared_grid"),
    ],
)
def test_impossible_grids_are_refused(
    shape: tuple[int, ...], matrix: np.ndarray, code: str
) -> None:
    affine = np.eye(4)
    affine[:3, :3] = matrix
    with pytest.raises(GeometryError) as caught:
        Volume(np.zeros(shape, np.int16), affine, "ct")
    assert caught.value.code == code


def test_simpleitk_sees_the_same_places(phantom) -> None:
    volume = phantom.volume
    image = to_sitk(volume.array, volume.affine)
    point = image.TransformIndexToPhysicalPoint((7, 8, 9))
    np.testing.assert_allclose(point, (volume.affine @ [7, 8, 9, 1])[:3], atol=1e-9)
    assert spacing_mm(volume.affine) == pytest.approx(image.GetSpacing()[::-1])
