"""Scores of a network on labelled cases, always through the deployed pipeline: native grid, one
modality, the other stream absent.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from model.backends.base import Backend
from model.backends.torch import TorchBackend
from model.metrics import dice, hd95_mm, mean_surface_distance_mm
from model.network import AQCFNet
from model.pipeline import Result, segment
from model.render import preview
from model.spec import ModelSpec
from model.types import TUMOUR, MaskArray, Modality
from model.volume import Volume

from .config import TrainConfig
from .data import Case, read_case


@dataclass(frozen=True)
class CaseScore:
    """Agreement on one case. The liver counts tumour in, as LiTS does; ``tumour_dice`` is absent
    where the label does not know tumours. Distances in mm."""

    case: str
    modality: Modality
    quality: str
    liver_dice: float
    liver_hd95_mm: float
    liver_msd_mm: float
    tumour_dice: float | None
    liver_ml: float
    reference_ml: float
    seconds: float

    def row(self) -> dict[str, object]:
        return {name: _rounded(value) for name, value in self.__dict__.items()}


class Segmenter(Protocol):
    """Whatever gives a backend for a modality: a network in memory, or a model folder."""

    def __call__(self, modality: Modality) -> Backend: ...


def validate(
    net: AQCFNet, cases: Sequence[Case], config: TrainConfig, tell: Callable[[str], None]
) -> list[CaseScore]:
    """Score ``cases`` with the network in memory, with ``config.validation_profile``."""
    backends = {
        m: TorchBackend(net.one_stream(m), spec.patch) for m, spec in config.modalities.items()
    }
    spec = draft_spec(config)
    return evaluate(lambda m: backends[m], spec, cases, tell, profile=config.validation_profile)


def evaluate(
    backend: Segmenter,
    spec: ModelSpec,
    cases: Sequence[Case],
    tell: Callable[[str], None],
    *,
    profile: str | None = None,
    pictures: Path | None = None,
) -> list[CaseScore]:
    """Segment and score each case; with ``pictures`` a preview PNG of each goes there."""
    scores = []
    for case in cases:
        tell(case.name)
        volume, reference = read_case(case)
        result = segment(volume, spec, backend(case.modality), profile=profile)
        scores.append(score(case, volume, reference, result))
        if pictures is not None:
            pictures.mkdir(parents=True, exist_ok=True)
            (pictures / picture_name(case)).write_bytes(preview(volume, result.mask))
    return scores


def picture_name(case: Case) -> str:
    return case.name.replace("/", "_") + ".png"


def score(case: Case, volume: Volume, reference: MaskArray, result: Result) -> CaseScore:
    """Compare a result with the reference label of its case."""
    found, truth = result.mask > 0, reference > 0
    knows_tumour = case.quality == "full" and bool((reference == TUMOUR).any())
    return CaseScore(
        case=case.name,
        modality=case.modality,
        quality=case.quality,
        liver_dice=dice(found, truth),
        liver_hd95_mm=hd95_mm(found, truth, volume.spacing_mm),
        liver_msd_mm=mean_surface_distance_mm(found, truth, volume.spacing_mm),
        tumour_dice=dice(result.mask == TUMOUR, reference == TUMOUR) if knows_tumour else None,
        liver_ml=float(found.sum()) * volume.voxel_ml,
        reference_ml=float(truth.sum()) * volume.voxel_ml,
        seconds=sum(result.seconds.values()),
    )


def mean_dice(scores: Sequence[CaseScore]) -> float:
    """Mean over modalities of the mean over cases of the mean over the classes that are known."""
    by_modality: dict[str, list[float]] = {}
    for item in scores:
        known = [d for d in (item.liver_dice, item.tumour_dice) if d is not None]
        by_modality.setdefault(item.modality, []).append(float(np.mean(known)))
    return float(np.mean([np.mean(v) for v in by_modality.values()])) if by_modality else 0.0


def draft_spec(config: TrainConfig, *, version: str = "0") -> ModelSpec:
    """The manifest a run would ship with, before files and scores are known."""
    return ModelSpec(
        id=config.name,
        version=version,
        network=config.network,
        modalities=config.modalities,
        profiles=config.profiles,
        postprocess=config.postprocess,
    )


def _rounded(value: object) -> object:
    return round(value, 4) if isinstance(value, float) else value
