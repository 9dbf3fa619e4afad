"""A volume: voxels, where they are in the patient, and what made them."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .errors import GeometryError
from .types import Affine, Modality, NativeArray, ShapeZYX, SpacingZYX

ORTHOGONAL_TOLERANCE = 1e-3
MAX_LEAN_DEGREES = 45.0  # of a stack; a gantry tilts by 30 at most
MIN_SPACING_MM = 1e-3
MAX_SPACING_MM = 1000.0  # a few voxels of kilometres would ask for a grid beyond all bounds


@dataclass(frozen=True, eq=False)
class Volume:
    """One image on a regular grid of rectangular slices.

    ``array``: ``(z, y, x)``, any real dtype, HU for CT. ``affine``: ``(4, 4)`` float64,
    ``(x, y, z, 1)`` indices to LPS mm. The stack may lean (a tilted gantry): the step from slice
    to slice then is not perpendicular to the slices; see ``lean_of``.

    Raises ``GeometryError`` (``not_3d``, ``invalid_spacing``, ``sheared_grid``) when the array is
    not 3-D, the affine is not finite, a step is below 0.001 mm or beyond 1000 mm, x and y are not
    orthogonal within 1e-3, or the stack leans by more than 45 degrees.
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
    """Voxel spacing in mm, ``(z, y, x)``; where slices lean, the distance between their planes, so
    that the product is the volume of a voxel."""
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    axis = _leaning_axis(affine)
    if axis is not None:
        spacing[axis] = abs(np.linalg.det(affine[:3, :3])) / np.delete(spacing, axis).prod()
    x, y, z = spacing
    return float(z), float(y), float(x)


def lean_of(affine: Affine) -> NDArray[np.float64]:
    """How far, in voxels ``(x, y)``, a slice is shifted in its plane against the one before it;
    zeros where the slices stand straight within 1e-3."""
    if _leaning_axis(affine) != 2:
        return np.zeros(2)
    in_plane = affine[:3, :2]
    shift: NDArray[np.float64] = affine[:3, 2] @ in_plane / (in_plane**2).sum(axis=0)
    return shift


def straight(affine: Affine) -> Affine:
    """The affine with its slices pushed back so that they stand straight over the first."""
    lean = lean_of(affine)
    if not lean.any():
        return affine
    pushed = affine.copy()
    pushed[:3, 2] -= affine[:3, :2] @ lean
    return pushed


def check_grid(shape: tuple[int, ...], affine: Affine) -> None:
    """Refuse what is not a regular 3-D grid; see ``Volume`` for the codes."""
    if len(shape) != 3:
        raise GeometryError(f"the image has {len(shape)} dimensions, a volume has 3", code="not_3d")
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    plausible = spacing.min() >= MIN_SPACING_MM and spacing.max() <= MAX_SPACING_MM
    if not (np.isfinite(affine).all() and plausible):
        raise GeometryError(
            f"voxel spacing {spacing.tolist()} mm (x, y, z) is not between {MIN_SPACING_MM:g} and "
            f"{MAX_SPACING_MM:g} mm",
            code="invalid_spacing",
        )
    axes = affine[:3, :3] / spacing
    skew = abs(float(axes[:, 0] @ axes[:, 1]))
    if skew > ORTHOGONAL_TOLERANCE:
        raise GeometryError(
            f"the grid's axes are not orthogonal (cosine of x and y {skew:.4f})",
            code="sheared_grid",
        )
    upright = abs(float(np.cross(axes[:, 0], axes[:, 1]) @ axes[:, 2]))
    if upright < np.cos(np.radians(MAX_LEAN_DEGREES)):
        degrees = np.degrees(np.arccos(min(upright, 1.0)))
        raise GeometryError(
            f"the slices are sheared by {degrees:.0f} degrees; at most {MAX_LEAN_DEGREES:.0f} "
            "can be a stack",
            code="sheared_grid",
        )


def _leaning_axis(affine: Affine) -> int | None:
    """The axis that is not perpendicular to the other two (z, where it can be z); None for an
    orthogonal grid."""
    axes = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    cosines = np.abs(axes.T @ axes)
    others = np.array([cosines[1, 2], cosines[0, 2], cosines[0, 1]])
    if others.max() <= ORTHOGONAL_TOLERANCE:
        return None
    return 2 if others[2] <= ORTHOGONAL_TOLERANCE else int(others.argmin())
