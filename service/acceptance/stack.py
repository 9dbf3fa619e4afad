"""How a phantom is cut into slices: orientation, spacing, tilt."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
FEET_FIRST = (-1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
CORONAL = (1.0, 0.0, 0.0, 0.0, 0.0, -1.0)
OBLIQUE = (0.96, 0.28, 0.0, -0.224, 0.768, 0.6)


@dataclass(frozen=True)
class Stack:
    """``shape``: slices, rows, columns. ``spacing_mm``: between slices, rows, columns.
    ``orientation``: direction cosines of a row and of a column (PS3.3 C.7.6.2.1.1), LPS.
    ``tilt``: degrees by which the stack leans along the columns. ``gaps_mm``: between slices,
    where they are not equal."""

    shape: tuple[int, int, int]
    spacing_mm: tuple[float, float, float]
    orientation: tuple[float, ...] = AXIAL
    tilt: float = 0.0
    gaps_mm: tuple[float, ...] = ()

    @property
    def positions(self) -> tuple[tuple[float, float, float], ...]:
        """LPS mm of each slice's first voxel, along the normal; the stack's middle is the
        origin."""
        row, column, normal = self._axes()
        along = self._along()
        lean = np.tan(np.radians(self.tilt)) * along
        _, rows, columns = self.shape
        _, between_rows, between_columns = self.spacing_mm
        corner = -row * between_columns * (columns - 1) / 2 - column * between_rows * (rows - 1) / 2
        placed = corner + np.outer(along, normal) + np.outer(lean, column)
        return tuple((float(x), float(y), float(z)) for x, y, z in np.round(placed, 6))

    def points(self) -> NDArray[np.float64]:
        """LPS mm of every voxel's centre, ``(n, rows, columns, 3)``."""
        return np.stack(list(self._planes()))

    @property
    def voxel_ml(self) -> NDArray[np.float64]:
        """Volume of a voxel of each slice, ``(n,)``: half of the way to both neighbours."""
        along = self._along()
        middles = (along[1:] + along[:-1]) / 2
        first, last = along[0] * 2 - middles[0], along[-1] * 2 - middles[-1]
        thickness = np.diff(np.concatenate([[first], middles, [last]]))
        volume: NDArray[np.float64] = thickness * self.spacing_mm[1] * self.spacing_mm[2] / 1000
        return volume

    def _planes(self) -> Iterator[NDArray[np.float64]]:
        row, column, _ = self._axes()
        _, rows, columns = self.shape
        across = np.arange(columns)[None, :, None] * self.spacing_mm[2] * row
        down = np.arange(rows)[:, None, None] * self.spacing_mm[1] * column
        for position in self.positions:
            yield np.array(position) + across + down

    def _axes(self) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
        row, column = np.array(self.orientation[:3]), np.array(self.orientation[3:])
        return row, column, np.cross(row, column)

    def _along(self) -> NDArray[np.float64]:
        """mm along the normal from the stack's middle, ``(n,)``."""
        gaps = self.gaps_mm or (self.spacing_mm[0],) * (self.shape[0] - 1)
        along = np.concatenate([[0.0], np.cumsum(gaps)])
        middle: NDArray[np.float64] = along - along[-1] / 2
        return middle
