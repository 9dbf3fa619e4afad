import gzip
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from model.errors import InputError
from model.nifti import Limits, read_nifti, write_nifti

LPS = np.diag([-1.0, -1.0, 1.0, 1.0])


def oblique() -> np.ndarray:
    affine = np.eye(4)
    affine[:3, :3] = Rotation.from_euler("xyz", [10, 20, 30], degrees=True).as_matrix()
    affine[:3, :3] *= [1.5, -0.7, 4.0]
    affine[:3, 3] = [10, -20, 30]
    return affine


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16, np.int32, np.float32, np.float64])
def test_written_files_come_back_and_agree_with_nibabel(
    tmp_path: Path, name: str, dtype: type
) -> None:
    array = np.random.default_rng(0).integers(0, 200, (4, 5, 6)).astype(dtype)
    write_nifti(tmp_path / name, array, oblique())
    volume = read_nifti(tmp_path / name, "ct")
    other = nib.load(tmp_path / name)
    assert volume.array.dtype == dtype
    np.testing.assert_array_equal(volume.array, array)
    np.testing.assert_allclose(volume.affine, oblique(), atol=1e-5)
    np.testing.assert_array_equal(np.asarray(other.dataobj).T, array)
    np.testing.assert_allclose(LPS @ other.get_qform(), oblique(), atol=1e-5)
    np.testing.assert_allclose(LPS @ other.get_sform(), oblique(), atol=1e-5)


@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
@pytest.mark.parametrize("form", ["sform", "qform"])
@pytest.mark.parametrize("order", ["<", ">"])
def test_nibabel_files_are_read(tmp_path: Path, kind: type, form: str, order: str) -> None:
    array = np.arange(120, dtype=np.int16).reshape(4, 5, 6)
    affine = LPS @ oblique()
    image = kind(array.T, affine, header=kind.header_class(endianness=order))
    image.set_sform(affine, code=1 if form == "sform" else 0)
    image.set_qform(affine, code=1 if form == "qform" else 0)
    nib.save(image, tmp_path / "a.nii.gz")
    volume = read_nifti(tmp_path / "a.nii.gz", "mr")
    np.testing.assert_array_equal(volume.array, array)
    np.testing.assert_allclose(volume.affine, oblique(), atol=1e-5)


def test_slope_and_intercept_and_a_fourth_dimension_of_one(tmp_path: Path) -> None:
    image = nib.Nifti1Image(np.full((3, 4, 5, 1), 7, np.int16), np.eye(4))
    image.header.set_slope_inter(2.0, -1024.0)
    nib.save(image, tmp_path / "a.nii")
    volume = read_nifti(tmp_path / "a.nii", "ct")
    assert volume.shape == (5, 4, 3)
    assert volume.array.dtype == np.float32
    assert np.unique(volume.array).tolist() == [2.0 * 7 - 1024.0]


def test_equal_masks_give_equal_bytes(tmp_path: Path) -> None:
    for name in ("a.nii.gz", "b.nii.gz"):
        write_nifti(tmp_path / name, np.ones((3, 4, 5), np.uint8), np.eye(4))
    assert (tmp_path / "a.nii.gz").read_bytes() == (tmp_path / "b.nii.gz").read_bytes()


def image_of(
    shape: tuple[int, ...], dtype: type = np.float32, fill: float = 1.0
) -> nib.Nifti1Image:
    return nib.Nifti1Image(np.full(shape, fill, dtype), np.eye(4))


def without_form() -> nib.Nifti1Image:
    image = image_of((4, 4, 4))
    image.set_sform(None, 0)
    image.set_qform(None, 0)
    return image


def some_nan() -> nib.Nifti1Image:
    array = np.zeros((4, 4, 4), np.float32)
    array[1, 2, 3] = np.nan
    return nib.Nifti1Image(array, np.eye(4))


def immense() -> nib.Nifti1Image:
    array = np.zeros((4, 4, 4))
    array[1, 2, 3] = -1e300
    return nib.Nifti1Image(array, np.eye(4))


def sheared() -> nib.Nifti1Image:
    affine = np.eye(4)
    affine[0, 1] = 0.2
    image = nib.Nifti1Image(np.zeros((4, 4, 4), np.float32), np.eye(4))
    image.set_sform(affine, 1)
    return image


def without_bounds() -> nib.Nifti1Image:
    image = image_of((4, 4, 4))
    image.set_sform(np.full((4, 4), np.inf), 1)
    return image


BAD = {
    "invalid_spacing": [without_bounds()],
    "not_3d": [image_of((4, 4)), image_of((4, 4, 4, 3)), image_of((4, 4, 1))],
    "no_finite_voxels": [image_of((4, 4, 4), fill=np.nan)],
    "non_finite_voxels": [some_nan(), immense()],
    "no_spacing": [without_form()],
    "sheared_grid": [sheared()],
    "unsupported_pixels": [image_of((4, 4, 4), np.complex64)],
}


@pytest.mark.parametrize(("code", "image"), [(c, i) for c, images in BAD.items() for i in images])
def test_bad_images_are_refused(tmp_path: Path, code: str, image: nib.Nifti1Image) -> None:
    nib.save(image, tmp_path / "a.nii.gz")
    with pytest.raises(InputError) as caught:
        read_nifti(tmp_path / "a.nii.gz", "ct")
    assert caught.value.code == code


def patched(path: Path, offset: int, data: bytes) -> Path:
    write_nifti(path, np.ones((4, 4, 4), np.int16), np.eye(4))
    raw = bytearray(path.read_bytes())
    raw[offset : offset + len(data)] = data
    path.write_bytes(raw)
    return path


def test_no_spacing_in_the_header(tmp_path: Path) -> None:
    path = patched(tmp_path / "a.nii", 80, np.zeros(3, "<f4").tobytes())
    with pytest.raises(InputError) as caught:
        read_nifti(path, "ct")
    assert caught.value.code == "no_spacing"


def test_a_huge_declaration_is_refused_unread(tmp_path: Path) -> None:
    path = patched(tmp_path / "a.nii", 42, np.array([3000, 3000, 3000], "<i2").tobytes())
    with pytest.raises(InputError) as caught:
        read_nifti(path, "ct")
    assert caught.value.code == "input_too_large"
    with pytest.raises(InputError):
        read_nifti(patched(tmp_path / "b.nii", 0, b""), "ct", limits=Limits(max_voxels=63))


@pytest.mark.parametrize("content", [b"", b"text, not an image", b"\x00" * 600, b"\x1f\x8b"])
def test_files_that_are_no_nifti(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.nii").write_bytes(content)
    with pytest.raises(InputError) as caught:
        read_nifti(tmp_path / "a.nii", "ct")
    assert caught.value.code in {"not_nifti", "truncated_file"}


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
def test_a_file_that_breaks_off(tmp_path: Path, name: str) -> None:
    noise = np.random.default_rng(0).integers(0, 99, (20, 20, 20)).astype(np.int16)
    write_nifti(tmp_path / name, noise, np.eye(4))
    raw = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(raw[: len(raw) // 2])
    with pytest.raises(InputError) as caught:
        read_nifti(tmp_path / name, "ct")
    assert caught.value.code == "truncated_file"


def test_a_bomb_behind_the_header_is_not_unpacked(tmp_path: Path) -> None:
    write_nifti(tmp_path / "a.nii", np.ones((4, 4, 4), np.int16), np.eye(4))
    packed = gzip.compress((tmp_path / "a.nii").read_bytes() + bytes(50_000_000))
    (tmp_path / "b.nii.gz").write_bytes(packed)
    assert read_nifti(tmp_path / "b.nii.gz", "ct").shape == (4, 4, 4)


@pytest.mark.parametrize("offset", [np.nan, np.inf, -1.0, 0.0, 1e12])
def test_an_impossible_voxel_offset_is_refused(tmp_path: Path, offset: float) -> None:
    path = tmp_path / "a.nii"
    write_nifti(path, np.zeros((3, 4, 5), np.int16), np.eye(4))
    content = bytearray(path.read_bytes())
    content[108:112] = np.array([offset], "<f4").tobytes()
    path.write_bytes(content)
    with pytest.raises(InputError, match="puts the voxels") as caught:
        read_nifti(path, "ct")
    assert caught.value.code == "not_nifti"


def test_a_scale_beyond_every_float_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.nii"
    write_nifti(path, np.full((4, 4, 4), 30000, np.int16), np.eye(4))
    data = bytearray(path.read_bytes())
    data[112:116] = np.float32(3e38).tobytes()
    path.write_bytes(data)
    with pytest.raises(InputError) as caught:
        read_nifti(path, "ct")
    assert caught.value.code == "no_finite_voxels"
