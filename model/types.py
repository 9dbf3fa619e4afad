"""Array aliases. Said once, true everywhere:

* arrays are indexed ``[z, y, x]`` (slice, row, column), and every triple that speaks of an array
  (shape, spacing, patch) is in that order too;
* an affine maps ``(x, y, z, 1)`` voxel indices to **LPS+ millimetres** (the patient system of
  DICOM and SimpleITK; NIfTI's RAS+ is converted at the border);
* batches are ``(n, channel, z, y, x)``.
"""

from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

Modality: TypeAlias = Literal["ct", "mr"]
MODALITIES: tuple[Modality, ...] = ("ct", "mr")

ImageArray: TypeAlias = NDArray[np.float32]  # (z, y, x)
NativeArray: TypeAlias = NDArray[np.generic]  # (z, y, x), as stored: int16, uint16, float32, ...
MaskArray: TypeAlias = NDArray[np.uint8]  # (z, y, x), 0 background, 1 liver, 2 tumour
Batch: TypeAlias = NDArray[np.float32]  # (n, channel, z, y, x)
Affine: TypeAlias = NDArray[np.float64]  # (4, 4), (x, y, z, 1) -> LPS mm
ShapeZYX: TypeAlias = tuple[int, int, int]
SpacingZYX: TypeAlias = tuple[float, float, float]  # mm

BACKGROUND, LIVER, TUMOUR = 0, 1, 2
