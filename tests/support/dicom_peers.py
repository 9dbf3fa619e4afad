"""Real peers that judge what is written: dicom3tools and dcmqi, from the environment's bin."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from service.dicom.geometry import NativeGrid

BIN = Path(sys.executable).parent

Real = Callable[[str], list[Path]]


def dciodvfy_errors(path: Path) -> list[str]:
    """The lines in which dicom3tools' verifier sees an error."""
    done = subprocess.run(
        [BIN / "dciodvfy", path], capture_output=True, text=True, errors="replace", check=False
    )
    return [line for line in (done.stdout + done.stderr).splitlines() if line.startswith("Error")]


def inflated(path: Path) -> Path:
    """A copy by dcmtk in Explicit VR Little Endian, beside the file."""
    copy = path.with_suffix(".inflated.dcm")
    subprocess.run(
        ["/usr/bin/dcmconv", "--write-xfer-little", path, copy], capture_output=True, check=True
    )
    return copy


def dcmqi_mask(seg: Path, folder: Path, grid: NativeGrid) -> NDArray[np.uint8]:
    """What dcmqi makes of a BINARY SEG, put voxel by voxel where it lies on our native grid."""
    _dcmqi(seg, folder)
    mask = np.zeros((grid.slices, grid.rows, grid.columns), np.uint8)
    for value in (1, 2):
        _put(folder / f"{value}.nii.gz", mask, grid, value)
    return mask


def dcmqi_labelmap(seg: Path, folder: Path, grid: NativeGrid) -> NDArray[np.uint8]:
    """The same for a LABELMAP, which dcmqi writes as one image of all values."""
    _dcmqi(seg, folder)
    mask = np.zeros((grid.slices, grid.rows, grid.columns), np.uint8)
    _put(folder / "1.nii.gz", mask, grid)
    return mask


def _dcmqi(seg: Path, folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    paths = ["--inputDICOM", seg, "--outputDirectory", folder]
    subprocess.run(
        [BIN / "segimage2itkimage", "--outputType", "nii", *paths],
        capture_output=True,
        check=True,
    )


def _put(file: Path, mask: NDArray[np.uint8], grid: NativeGrid, value: int | None = None) -> None:
    image = sitk.ReadImage(str(file))
    values = sitk.GetArrayFromImage(image)
    z, y, x = np.nonzero(values)
    index = _indices(image, np.stack([x, y, z]), grid)
    mask[index[2], index[1], index[0]] = values[z, y, x] if value is None else value


def dcmqi_slices(seg: Path, folder: Path) -> NDArray[np.uint8]:
    """What dcmqi makes of a SEG, slice by slice as it stacks them."""
    _dcmqi(seg, folder)
    liver, tumour = (
        sitk.GetArrayFromImage(sitk.ReadImage(str(folder / f"{value}.nii.gz"))) for value in (1, 2)
    )
    return np.where(tumour > 0, 2, np.where(liver > 0, 1, 0)).astype(np.uint8)


def _indices(image: sitk.Image, voxels: NDArray[np.intp], grid: NativeGrid) -> NDArray[np.intp]:
    matrix = np.array(image.GetDirection()).reshape(3, 3) * np.array(image.GetSpacing())
    world = matrix @ voxels + np.array(image.GetOrigin())[:, None]
    index = np.linalg.inv(grid.affine) @ np.vstack([world, np.ones(world.shape[1])])
    rounded = np.rint(index[:3])
    assert not rounded.size or np.abs(index[:3] - rounded).max() < 0.05
    return rounded.astype(np.intp)
