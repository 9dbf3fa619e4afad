"""A volume: voxels, where they are in the patient, and what made them."""

from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk

from .errors import GeometryError
from .types import Affine, Modality, NativeArray, ShapeZYX, SpacingZYX

ORTHOGONAL_TOLERANCE = 1e-3


@dataclass(frozen=True, eq=False)
class Volume:
    """One image on a regular, orthogonal grid.

    ``array``: ``(z, y, x)``, any real dtype, HU for CT. ``affine``: ``(4, 4)`` float64,
    ``(x, y, z, 1)`` indices to LPS mm.

    Raises ``GeometryError`` (``not_3d``, ``invalid_spacing``, ``sheared_grid``) when the array is
    not 3-D or the affine's axes are not finite, non-zero and orthogonal within 1e-3.
    """

    array: NativeArray
    affine: Affine
    modality: Modality

    def __post_init__(self) -> None:
        check_grid(self.array.shape, self.affine)

    @property
    def shape(self) -> ShapeZYX:
        z, y, x = self.array.shape
        return z, y, x

    @property
    def spacing_mm(self) -> SpacingZYX:
        return spacing_mm(self.affine)

    @property
    def voxel_ml(self) -> float:
        return float(np.prod(self.spacing_mm)) / 1000.0


def spacing_mm(affine: Affine) -> SpacingZYX:
    """Voxel spacing in mm, ``(z, y, x)``."""
    x, y, z = np.linalg.norm(affine[:3, :3], axis=0)
    return float(z), float(y), float(x)


def check_grid(shape: tuple[int, ...], affine: Affine) -> None:
    """Refuse what is not a regular orthogonal 3-D grid; see ``Volume`` for the codes."""
    if len(shape) != 3:
        raise GeometryError(f"the image has {len(shape)} dimensions, a volume has 3", code="not_3d")
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    if not (np.isfinite(affine).all() and (spacing > 0).all()):
        raise GeometryError(
            f"voxel spacing {spacing.tolist()} mm (x, y, z) is not positive and finite",
            code="invalid_spacing",
        )
    axes = affine[:3, :3] / spacing
    skew = float(np.abs(axes.T @ axes - np.eye(3)).max())
    if skew > ORTHOGONAL_TOLERANCE:
        raise GeometryError(
            f"the grid's axes are not orthogonal (largest cosine {skew:.4f})", code="sheared_grid"
        )


def to_sitk(array: NativeArray, affine: Affine) -> sitk.Image:
    """The array as a SimpleITK image in the same place (both speak LPS)."""
    image = sitk.GetImageFromArray(array)
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    image.SetSpacing(spacing.tolist())
    image.SetOrigin(affine[:3, 3].tolist())
    image.SetDirection((affine[:3, :3] / spacing).ravel().tolist())
    return image


def sitk_affine(image: sitk.Image) -> Affine:
    """The affine of a 3-D SimpleITK image, ``(x, y, z, 1)`` to LPS mm."""
    affine = np.eye(4)
    affine[:3, :3] = np.array(image.GetDirection()).reshape(3, 3) * np.array(image.GetSpacing())
    affine[:3, 3] = image.GetOrigin()
    return affine
