"""A preprocessed case, in memory or mapped from a file, and what its label means."""

from dataclasses import dataclass
from functools import cached_property
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

    @property
    def has_tumour(self) -> bool:
        return bool(self._counts[TUMOUR].any())

    def voxel(self, value: int, rng: Generator) -> NDArray[np.int64] | None:
        """A random voxel ``(z, y, x)`` with the label 1 or 2, if there is one."""
        up_to = np.cumsum(self._counts[value])
        if not up_to[-1]:
            return None
        chosen = rng.integers(up_to[-1])
        z = int(np.searchsorted(up_to, chosen, side="right"))
        inside = np.flatnonzero(self.label[z] == value)
        flat = inside[chosen - up_to[z] + self._counts[value][z]]
        return np.array([z, *np.unravel_index(flat, self.label.shape[1:])])

    @cached_property
    def _counts(self) -> dict[int, NDArray[np.int64]]:
        """How many voxels of each label a slice holds: all that is kept of where they are."""
        counts = np.array([np.bincount(s.ravel(), minlength=3)[:3] for s in self.label], np.int64)
        return {value: counts[:, value] for value in (LIVER, TUMOUR)}
