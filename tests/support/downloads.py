"""Miniatures of public data sets, in the very layout in which they are downloaded."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

from model.nifti import write_nifti
from model.resample import reorient
from model.types import Affine

SHAPE = (8, 14, 12)
Array = NDArray[np.generic]


def picture(seed: int, shape: Sequence[int] = SHAPE) -> NDArray[np.int16]:
    """Noise that is soft tissue on CT, and nowhere symmetric."""
    return np.random.default_rng(seed).integers(10, 200, shape).astype(np.int16)


def outline(shape: Sequence[int] = SHAPE, *, tumours: bool = True) -> NDArray[np.uint8]:
    """A liver with two tumours, different under every flip and every order of the axes."""
    z, y, x = shape
    label = np.zeros(shape, np.uint8)
    label[1 : z - 3, 2 : y - 5, 1 : x - 4] = 1
    label[1 : z - 4, 2:4, x - 4] = 1
    if tumours:
        label[2, 3:5, 2:4] = 2
        label[4, 5:7, 4] = 2
    return label


def grid(spacing_mm: Sequence[float] = (4.0, 2.0, 1.5), turn: str = "axial") -> Affine:
    """``axial``: the identity's axes; ``flipped``: rows go to the front; ``oblique``: turned by 20
    degrees about x, slices to the left."""
    angle = np.deg2rad(20)
    axes = {
        "axial": np.eye(3),
        "flipped": np.diag([1.0, -1.0, -1.0]),
        "oblique": np.array([[0, 0, 1], [np.cos(angle), np.sin(angle), 0],
                             [np.sin(angle), -np.cos(angle), 0]]),
    }[turn]  # fmt: skip
    affine = np.eye(4)
    affine[:3, :3] = axes * np.array(spacing_mm[::-1])
    affine[:3, 3] = (-30.5, 12.25, 101.0)
    return affine


def write_pair(image: Path, label: Path, seed: int, mask: Array, affine: Affine) -> Array:
    """Both files; gives the voxels."""
    voxels = picture(seed, mask.shape)
    for path, array in ((image, voxels), (label, mask)):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_nifti(path, array, affine)
    return voxels


def write_series(files: Sequence[Path], array: Array, affine: Affine, **tags: Any) -> None:
    """Slice ``k`` of the array becomes ``files[k]``."""
    steps = affine[:3, :3]
    spacing = np.linalg.norm(steps, axis=0)
    for k, (file, plane) in enumerate(zip(files, array, strict=True)):
        place = affine[:3, 3] + k * steps[:, 2]
        write_dicom(file, plane, place, (steps / spacing)[:, :2], spacing[:2], **tags)


def write_dicom(
    file: Path, plane: Array, position: Array, axes: Array, spacing: Array, **tags: Any
) -> None:
    """One image. ``axes``: row and column direction as columns; ``spacing``: (x, y) mm."""
    data = Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID = CTImageStorage
    data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID = generate_uid()
    data.Modality, data.PatientID, data.SamplesPerPixel = "CT", "x", 1
    data.PhotometricInterpretation = "MONOCHROME2"
    data.Rows, data.Columns = plane.shape
    bits = 8 * plane.dtype.itemsize
    data.BitsAllocated, data.BitsStored, data.HighBit = bits, bits, bits - 1
    data.PixelRepresentation = int(plane.dtype.kind == "i")
    data.ImagePositionPatient = [f"{v:.6f}" for v in position]
    data.ImageOrientationPatient = [f"{v:.12f}" for v in np.asarray(axes).T.ravel()]
    data.PixelSpacing = [f"{v:.6f}" for v in spacing[::-1]]
    data.PixelData = np.ascontiguousarray(plane).tobytes()
    for name, value in tags.items():
        setattr(data, name, value)
    file.parent.mkdir(parents=True, exist_ok=True)
    data.save_as(file, enforce_file_format=True)


def write_pngs(files: Sequence[Path], array: Array) -> None:
    for file, plane in zip(files, array, strict=True):
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.asarray(plane, np.uint8)).save(file)


def straight(array: Array, affine: Affine) -> tuple[Array, Affine]:
    """The same voxels with axes to the left, back and head: equal for equal contents in space."""
    return reorient(array, affine, "LPS")


def lits_case(folder: Path, number: int, **options: Any) -> Array:
    """``volume-N.nii`` and ``segmentation-N.nii``."""
    mask, affine = options.get("mask", outline()), options.get("affine", grid())
    files = (folder / f"{name}-{number}.nii" for name in ("volume", "segmentation"))
    return write_pair(*files, number, mask, affine)
