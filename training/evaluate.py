"""Scores of a network on labelled cases, always through the deployed pipeline: native grid, one
modality, the other stream absent.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
from torch import nn

from model.backends.base import Backend
from model.backends.torch import TorchBackend
from model.metrics import BoolArray, dice, surface_agreement_mm
from model.nifti import write_nifti
from model.pipeline import Result, segment
from model.render import preview
from model.spec import ModelSpec
from model.types import TUMOUR, MaskArray, Modality, SpacingZYX
from model.volume import Volume

from .config import TrainConfig
from .data import Case, read_case
from .methods import Method


@dataclass(frozen=True)
class CaseScore:
    """Agreement on one case; distances in mm.

    The liver counts tumour in, as LiTS does. What is said of the tumour is absent where the
    reference has none, or does not know. Where one of both masks is empty, distances are the
    volume's diagonal: a mean can be formed, and a miss costs.
    """

    case: str
    modality: Modality
    quality: str
    liver_dice: float
    liver_hd95_mm: float
    liver_msd_mm: float
    tumour_dice: float | None
    tumour_hd95_mm: float | None
    tumour_msd_mm: float | None
    liver_ml: float
    reference_ml: float
    seconds: float

    def row(self) -> dict[str, object]:
        return {name: _rounded(value) for name, value in self.__dict__.items()}


class Agreement(NamedTuple):
    """Dice, 95th percentile of the Hausdorff distance, mean surface distance."""

    dice: float
    hd95_mm: float
    msd_mm: float


class Segmenter(Protocol):
    """Whatever gives a backend for a modality: a network in memory, or a model folder."""

    def __call__(self, modality: Modality) -> Backend: ...


def validate(
    net: nn.Module, cases: Sequence[Case], config: TrainConfig, tell: Callable[[str], None]
) -> list[CaseScore]:
    """Score ``cases`` with the network in memory, with ``config.validation_profile``."""
    spec = draft_spec(config)
    return evaluate(in_memory(net, config), spec, cases, tell, profile=config.validation_profile)


def in_memory(net: nn.Module, config: TrainConfig) -> Segmenter:
    """Each modality's part of a ``Method``, as the deployed pipeline sees it."""
    if not isinstance(net, Method):
        raise TypeError(f"{type(net).__name__} has no part for one modality")
    backends = {
        m: TorchBackend(net.one_stream(m), spec.patch) for m, spec in config.modalities.items()
    }
    return lambda modality: backends[modality]


def evaluate(
    backend: Segmenter,
    spec: ModelSpec,
    cases: Sequence[Case],
    tell: Callable[[str], None],
    *,
    profile: str | None = None,
    pictures: Path | None = None,
    masks: Path | None = None,
) -> list[CaseScore]:
    """Segment and score each case; a preview PNG of each goes to ``pictures``, a NIfTI to ``masks``
    where they are given."""
    scores = []
    for case in cases:
        tell(case.name)
        volume, reference = read_case(case)
        result = segment(volume, spec, backend(case.modality), profile=profile)
        scores.append(score(case, volume, reference, result))
        if pictures is not None:
            pictures.mkdir(parents=True, exist_ok=True)
            (pictures / picture_name(case)).write_bytes(preview(volume, result.mask))
        if masks is not None:
            masks.mkdir(parents=True, exist_ok=True)
            write_nifti(masks / mask_name(case), result.mask, volume.affine)
    return scores


def picture_name(case: Case) -> str:
    return case.name.replace("/", "_") + ".png"


def mask_name(case: Case) -> str:
    return case.name.replace("/", "_") + ".nii.gz"


def score(case: Case, volume: Volume, reference: MaskArray, result: Result) -> CaseScore:
    """Compare a result with the reference label of its case."""
    spacing = volume.spacing_mm
    liver = agreement(result.mask > 0, reference > 0, spacing)
    tumour: Agreement | None = None
    if case.quality == "full" and bool((reference == TUMOUR).any()):
        tumour = agreement(result.mask == TUMOUR, reference == TUMOUR, spacing)
    return CaseScore(
        case=case.name,
        modality=case.modality,
        quality=case.quality,
        liver_dice=liver.dice,
        liver_hd95_mm=liver.hd95_mm,
        liver_msd_mm=liver.msd_mm,
        tumour_dice=tumour.dice if tumour else None,
        tumour_hd95_mm=tumour.hd95_mm if tumour else None,
        tumour_msd_mm=tumour.msd_mm if tumour else None,
        liver_ml=float(np.count_nonzero(result.mask)) * volume.voxel_ml,
        reference_ml=float(np.count_nonzero(reference)) * volume.voxel_ml,
        seconds=sum(result.seconds.values()),
    )


def agreement(prediction: BoolArray, reference: BoolArray, spacing_mm: SpacingZYX) -> Agreement:
    """Of two ``(z, y, x)`` masks; the volume's diagonal instead of an infinite distance."""
    diagonal = float(np.linalg.norm(np.array(prediction.shape) * spacing_mm))
    hd95, mean = surface_agreement_mm(prediction, reference, spacing_mm)
    return Agreement(dice(prediction, reference), min(hd95, diagonal), min(mean, diagonal))


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
