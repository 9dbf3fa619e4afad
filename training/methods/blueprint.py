"""What rebuilds a baseline: its settings, and the patches it was planned for."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeVar

from model.spec import Frozen
from model.types import MODALITIES, Modality, ShapeZYX, SpacingZYX

from ..config import MethodConfig, TrainConfig

T = TypeVar("T")


@dataclass(frozen=True)
class StreamPlan:
    """What one network is built for; ``patch`` in voxels, (z, y, x)."""

    method: MethodConfig
    classes: int
    patch: ShapeZYX
    spacing_mm: SpacingZYX


class Blueprint(Frozen):
    """``patches`` in voxels and ``spacings_mm``, both (z, y, x); ``classes`` with background."""

    method: MethodConfig
    classes: int
    patches: dict[Modality, ShapeZYX]
    spacings_mm: dict[Modality, SpacingZYX]

    def stream(self, modality: Modality) -> StreamPlan:
        return StreamPlan(
            self.method, self.classes, self.patches[modality], self.spacings_mm[modality]
        )

    def common(self) -> StreamPlan:
        """For one network of both modalities: the smaller patch and the coarser spacing, axis by
        axis."""
        patch = _triple(map(min, *self.patches.values()))
        spacing_mm = _triple(map(max, *self.spacings_mm.values()))
        return StreamPlan(self.method, self.classes, patch, spacing_mm)


def blueprint(config: TrainConfig) -> Blueprint:
    """The blueprint of the network that a run of ``config`` trains."""
    specs = config.modalities
    return Blueprint(
        method=config.method,
        classes=config.network.classes,
        patches={m: specs[m].patch for m in MODALITIES},
        spacings_mm={m: specs[m].spacing_mm for m in MODALITIES},
    )


def _triple(values: Iterable[T]) -> tuple[T, T, T]:
    z, y, x = values
    return z, y, x
