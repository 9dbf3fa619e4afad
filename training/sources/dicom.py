"""A stack of single-frame DICOM images as a volume. Read through SimpleITK (GDCM)."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from model.errors import InputError
from model.types import Affine, Modality
from model.volume import Volume

_POSITION, _ORIENTATION, _SPACING = "0020|0032", "0020|0037", "0028|0030"
_SAME = 1e-4
_STEP_TOLERANCE = 0.02  # of the distance of two slices


@dataclass(frozen=True, eq=False)
class _Slice:
    """``pixels`` ``(y, x)``; ``axes``: row and column cosines, LPS; ``spacing_mm``: (y, x)."""

    name: str
    pixels: NDArray[np.generic]
    position: NDArray[np.float64]
    axes: NDArray[np.float64]
    spacing_mm: NDArray[np.float64]


def read_stack(files: Sequence[Path], modality: Modality) -> tuple[Volume, list[int]]:
    """The images as one volume, lowest along the slice normal first; and the order: slice ``k`` is
    ``files[order[k]]``. HU where the files have a rescale slope.

    Raises ``InputError`` with code ``not_dicom``, ``missing_geometry``, ``irregular_stack``
    (fewer than two slices, other sizes or orientations, gaps that differ by more than 2 %);
    ``GeometryError`` for slices that are sheared by more than 45 degrees. The slices of a tilted
    gantry lean: see ``model.volume.lean_of``.
    """
    slices = [_read_slice(file) for file in files]
    _check_alike(slices)
    row, column = slices[0].axes
    heights = [float(np.dot(np.cross(row, column), s.position)) for s in slices]
    order = np.argsort(heights, kind="stable").tolist()
    ordered = [slices[k] for k in order]
    array = np.stack([s.pixels for s in ordered])
    return Volume(array, _affine(ordered), modality), order


def read_pixels(file: Path) -> tuple[NDArray[np.generic], sitk.Image]:
    """Pixels ``(y, x)`` of one file, and its header. Raises ``InputError`` (``not_dicom``)."""
    reader = sitk.ImageFileReader()
    reader.SetImageIO("GDCMImageIO")
    reader.SetFileName(str(file))
    try:
        image = reader.Execute()
        pixels = sitk.GetArrayFromImage(image)
    except RuntimeError as error:
        raise InputError(f"{file} is not a readable DICOM image", code="not_dicom") from error
    if pixels.ndim != 3 or len(pixels) != 1:
        raise InputError(f"{file} is not one grey image", code="not_dicom")
    plane: NDArray[np.generic] = pixels[0]
    return plane.astype(np.float32) if plane.dtype == np.float64 else plane, image


def _read_slice(file: Path) -> _Slice:
    pixels, image = read_pixels(file)
    return _Slice(
        file.name,
        pixels,
        _numbers(image, _POSITION, 3, file),
        _numbers(image, _ORIENTATION, 6, file).reshape(2, 3),
        _numbers(image, _SPACING, 2, file),
    )


def _numbers(image: sitk.Image, tag: str, count: int, file: Path) -> NDArray[np.float64]:
    text = image.GetMetaData(tag) if image.HasMetaDataKey(tag) else ""
    try:
        values = np.array([float(part) for part in text.split("\\")])
    except ValueError:
        values = np.empty(0)
    if len(values) != count or not np.isfinite(values).all():
        raise InputError(
            f"{file}: tag ({tag.replace('|', ',')}) is {text!r}, {count} numbers are needed",
            code="missing_geometry",
        )
    return values


def _check_alike(slices: Sequence[_Slice]) -> None:
    if len(slices) < 2:
        raise InputError(f"{len(slices)} slices are no volume", code="irregular_stack")
    first = slices[0]
    for other in slices[1:]:
        same = (
            other.pixels.shape == first.pixels.shape
            and np.allclose(other.axes, first.axes, atol=_SAME)
            and np.allclose(other.spacing_mm, first.spacing_mm, atol=_SAME)
        )
        if not same:
            raise InputError(
                f"{other.name} differs from {first.name} in size, orientation or pixel spacing",
                code="irregular_stack",
            )


def _affine(ordered: Sequence[_Slice]) -> Affine:
    positions = np.array([s.position for s in ordered])
    step = (positions[-1] - positions[0]) / (len(ordered) - 1)
    expected = positions[0] + np.arange(len(ordered))[:, None] * step
    off = np.linalg.norm(positions - expected, axis=1)
    length = float(np.linalg.norm(step))
    if length < _SAME or off.max() > _STEP_TOLERANCE * length:
        worst = int(off.argmax())
        raise InputError(
            f"{ordered[worst].name} lies {off[worst]:.2f} mm from where slices {length:.2f} mm "
            "apart would put it: one is missing, doubled or tilted",
            code="irregular_stack",
        )
    affine = np.eye(4)
    (row, column), (dy, dx) = ordered[0].axes, ordered[0].spacing_mm
    affine[:3, :3] = np.column_stack([row * dx, column * dy, step])
    affine[:3, 3] = positions[0]
    return affine
