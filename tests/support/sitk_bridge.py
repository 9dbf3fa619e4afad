"""Volumes as SimpleITK sees them, to be compared with; both speak LPS."""

import numpy as np
import SimpleITK as sitk

from model.types import Affine, NativeArray


def to_sitk(array: NativeArray, affine: Affine) -> sitk.Image:
    """The array in the same place; slices must not lean, since SimpleITK has no shear."""
    image = sitk.GetImageFromArray(array)
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    image.SetSpacing(spacing.tolist())
    image.SetOrigin(affine[:3, 3].tolist())
    image.SetDirection((affine[:3, :3] / spacing).ravel().tolist())
    return image
