"""Baselines in the loop."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from training.config import TrainConfig
from training.data import list_cases, load_samples
from training.loop import BEST, fit
from training.methods import load_method
from training.progress import Progress
from training.sample import Sample

Baseline = Callable[[str], TrainConfig]


def nothing(done: int, total: int) -> None:
    pass


def run_config(config: TrainConfig, root: Path, epochs: int) -> TrainConfig:
    changes = {
        "data": {"root": root},
        "epochs": epochs,
        "steps_per_epoch": 2,
        "optimiser": {"lr": 1e-2, "ema": 0.9, "clip_norm": 1.0},
        "exchange_dropout": 0.5,
        "precision": "bf16-mixed",
    }
    return TrainConfig.model_validate({**config.model_dump(), **changes})


@pytest.fixture(scope="module")
def samples(
    root: Path, baseline: Baseline, tmp_path_factory: pytest.TempPathFactory
) -> list[Sample]:
    config = run_config(baseline("dynunet"), root, 1)
    cases = list_cases(config.data)
    return load_samples(cases, config, tmp_path_factory.mktemp("cache"), nothing)


def weights(net: nn.Module) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in net.parameters()])


@pytest.mark.parametrize("name", ["dynunet", "unpaired_kd"])
def test_a_run_that_goes_on_ends_where_an_unbroken_one_does(
    name: str, root: Path, baseline: Baseline, samples: list[Sample], tmp_path: Path
) -> None:
    """The averaged weights too, and what lies on disk is what was deployed."""
    short, whole = (run_config(baseline(name), root, epochs) for epochs in (1, 2))
    for folder in ("broken", "unbroken"):
        (tmp_path / folder).mkdir()
    fit(short, samples, [], tmp_path / "broken", Progress(short.steps))
    nets = [fit(whole, samples, [], tmp_path / f, Progress(4)) for f in ("broken", "unbroken")]
    assert torch.equal(weights(nets[0]), weights(nets[1]))
    assert torch.equal(weights(load_method(tmp_path / "broken" / BEST, whole)), weights(nets[0]))
