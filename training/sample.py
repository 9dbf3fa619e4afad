"""A preprocessed case in memory, and what its label means."""

from dataclasses import dataclass, field
from typing import Literal, TypeAlias

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from model.types import LIVER, TUMOUR, MaskArray, Modality, SpacingZYX

# full: liver and tumour; merged: tumour counted as liver; healthy: no tumour there; pseudo:
# another model's output.
Quality: TypeAlias = Literal["full", "merged", "healthy", "pseudo"]


@dataclass(frozen=True, eq=False)
class Sample:
    """A preprocessed case: ``image`` float16 in [0, 1], ``label`` uint8, both ``(z, y, x)``.

    ``weight``: how often it is drawn, relative to the others of its modality. ``borrowed``: a CT
    case on MR's grid, in a wide window, whose intensities are remapped each time it is drawn.
    """

    name: str
    modality: Modality
    quality: Quality
    image: NDArray[np.float16]
    label: MaskArray
    spacing_mm: SpacingZYX
    weight: float = 1.0
    borrowed: bool = False
    _flat: dict[int, NDArray[np.int64]] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        flat = {value: np.flatnonzero(self.label == value) for value in (LIVER, TUMOUR)}
        object.__setattr__(self, "_flat", flat)

    @property
    def has_tumour(self) -> bool:
        return self._flat[TUMOUR].size > 0

    def voxel(self, value: int, rng: Generator) -> NDArray[np.int64] | None:
        """A random voxel ``(z, y, x)`` with the label 1 or 2, if there is one."""
        flat = self._flat[value]
        if not flat.size:
            return None
        return np.array(np.unravel_index(flat[rng.integers(flat.size)], self.label.shape))
