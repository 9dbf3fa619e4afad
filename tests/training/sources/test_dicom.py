"""A stack of DICOM images, in every order and orientation."""

from pathlib import Path
from zipfile import ZipFile

import numpy as np
import pytest
from downloads import grid, picture, straight, write_series
from numpy.testing import assert_allclose, assert_array_equal

from model.errors import InputError
from model.nifti import read_nifti
from training.sources.dicom import read_stack


def paths(folder: Path, count: int) -> list[Path]:
    return [folder / f"image_{k}" for k in range(count)]


@pytest.mark.parametrize("turn", ["axial", "flipped", "oblique"])
@pytest.mark.parametrize("descending", [False, True])
def test_voxels_are_where_the_headers_say(tmp_path: Path, turn: str, descending: bool) -> None:
    array, affine = picture(0), grid(turn=turn)
    files = paths(tmp_path, len(array))
    write_series(files[::-1] if descending else files, array, affine)
    volume, order = read_stack(files, "ct")
    for found, wanted in zip(
        straight(volume.array, volume.affine), straight(array, affine), strict=True
    ):
        assert_allclose(found, wanted, atol=1e-4)
    ranks = list(range(len(array)))
    assert order in (ranks, ranks[::-1])
    assert_array_equal(volume.array[0], array[-1 - order[0] if descending else order[0]])


def test_the_slices_of_a_tilted_gantry_lean(tmp_path: Path) -> None:
    array, affine = picture(0), grid()
    affine[1, 2] += 0.3 * affine[2, 2]
    files = paths(tmp_path, len(array))
    write_series(files, array, affine)
    volume, _ = read_stack(files, "ct")
    assert_array_equal(volume.array, array)
    assert_allclose(volume.affine, affine, atol=1e-4)


def test_hounsfield_units_and_types(tmp_path: Path) -> None:
    array = picture(1).astype(np.uint16)
    files = paths(tmp_path, len(array))
    write_series(files, array, grid())
    assert read_stack(files, "mr")[0].array.dtype == np.uint16
    write_series(files, array, grid(), RescaleSlope="1", RescaleIntercept="-1024")
    assert_array_equal(read_stack(files, "ct")[0].array, array.astype(int) - 1024)
    write_series(files, array, grid(), RescaleSlope="0.5", RescaleIntercept="0")
    half = read_stack(files, "ct")[0].array
    assert half.dtype == np.float32
    assert_array_equal(half, array * np.float32(0.5))


@pytest.mark.parametrize(
    ("damage", "code"),
    [("gap", "irregular_stack"), ("doubled", "irregular_stack"), ("single", "irregular_stack"),
     ("size", "irregular_stack"), ("turned", "irregular_stack"), ("tilted", "sheared_grid"),
     ("text", "not_dicom"), ("nowhere", "missing_geometry")],
)  # fmt: skip
def test_what_is_no_volume_is_refused(tmp_path: Path, damage: str, code: str) -> None:
    array, affine = picture(2), grid()
    files = paths(tmp_path, len(array))
    if damage == "tilted":
        affine[1, 2] = 20.0
    write_series(files, array, affine)
    if damage == "gap":
        del files[3]
    elif damage == "doubled":
        write_series(files[3:4], array[3:4], _moved(affine, 2))
    elif damage == "single":
        files = files[:1]
    elif damage == "size":
        write_series(files[3:4], array[3:4, 1:], _moved(affine, 3))
    elif damage == "turned":
        write_series(files[3:4], array[3:4], grid(turn="flipped"))
    elif damage == "text":
        files[3].write_text("no image")
    elif damage == "nowhere":
        write_series(files[3:4], array[3:4], affine, ImagePositionPatient=None)
    with pytest.raises(InputError) as caught:
        read_stack(files, "ct")
    assert caught.value.code == code


def _moved(affine: np.ndarray, slices: int) -> np.ndarray:
    moved = affine.copy()
    moved[:3, 3] += slices * affine[:3, 2]
    return moved


def test_a_real_series_is_the_nifti_of_the_same_scan(data_dir: Path, tmp_path: Path) -> None:
    """Rows run to the front in the DICOM, to the back in the NIfTI."""
    with ZipFile(data_dir / "dicom" / "ct_msd_liver0.zip") as archive:
        archive.extractall(tmp_path)
    volume, _ = read_stack(sorted(tmp_path.glob("*.dcm")), "ct")
    nifti = read_nifti(data_dir / "ct/lits_000_liveronly/image.nii.gz", "ct")
    found, wanted = straight(volume.array, volume.affine), straight(nifti.array, nifti.affine)
    assert_array_equal(found[0], wanted[0])
    assert_allclose(found[1], wanted[1], atol=0.02)
