"""A tiny configuration, and cases on disk that a phantom made."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from model.nifti import write_nifti
from model.types import MODALITIES
from training.config import TrainConfig
from training.synthetic import phantom

PATCH = (16, 16, 32)
SPACING_MM = (10.0, 8.0, 8.0)
QUALITIES = {"a": "full", "b": "full", "c": "merged", "d": "pseudo"}
ConfigMaker = Callable[..., TrainConfig]


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Threads cost more than they bring on maps this small."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def _modality(orientation: str, intensity: dict[str, Any]) -> dict[str, Any]:
    return {
        "orientation": orientation,
        "spacing_mm": SPACING_MM,
        "intensity": intensity,
        "patch": PATCH,
    }


@pytest.fixture(scope="session")
def values() -> dict[str, Any]:
    """What a configuration file must hold, small."""
    rules = {"largest_liver_component": False}
    return {
        "name": "tiny",
        "network": {"widths": (1, 2, 2, 2, 4), "bottleneck": 4},
        "modalities": {
            "ct": _modality("RAS", {"kind": "fixed", "lo": -16, "hi": 176}),
            "mr": _modality("RAS", {"kind": "percentile"}),
        },
        "profiles": {"balanced": {"overlap": 0.0}, "fast": {"overlap": 0.0}},
        "postprocess": {"ct": rules, "mr": rules},
        "accelerator": "cpu",
        "epochs": 2,
        "steps_per_epoch": 4,
        "checkpoint_every": 3,
    }


@pytest.fixture(scope="session")
def make_config(values: dict[str, Any]) -> ConfigMaker:
    def make(**changes: Any) -> TrainConfig:
        return TrainConfig.model_validate({**values, **changes})

    return make


@pytest.fixture(scope="session")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four cases per modality; ``a`` and ``c`` are one person. Read only."""
    folder = tmp_path_factory.mktemp("cases")
    rows = []
    for modality in MODALITIES:
        volume, label = phantom(
            modality, np.random.default_rng(0), shape_zyx=(20, 40, 48), spacing_mm=SPACING_MM
        )
        for number, (letter, quality) in enumerate(QUALITIES.items()):
            name = f"{modality}/{letter}"
            (folder / name).mkdir(parents=True)
            for kind, array in (("image", volume.array), ("label", label)):
                moved = np.roll(array, (number, -number), (0, 1))
                write_nifti(folder / name / f"{kind}.nii.gz", moved, volume.affine)
            patient = f"{modality}-{'one' if letter in 'ac' else letter}"
            rows.append(
                {"case": name, "modality": modality, "patient": patient, "labels": quality,
                 "licence": "CC0", "role": "develop", "spacing_known": True}
            )  # fmt: skip
    (folder / "cases.json").write_text(json.dumps(rows))
    return folder
