"""What only a CUDA device can show."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from model.backends.torch import TorchBackend
from model.network import AQCFNet
from training.config import TrainConfig
from training.data import list_cases, load_samples, split
from training.loop import STATE, fit
from training.progress import Progress

ROOT = Path(__file__).parents[2]
ConfigMaker = Callable[..., TrainConfig]

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


def test_a_step_of_the_paper_fits_40_gb(tmp_path: Path) -> None:
    report = tmp_path / "step.json"
    command = [sys.executable, "benchmarks/step.py", "--sides", "32", "48", "--json", str(report)]
    subprocess.run(command, cwd=ROOT, check=True)
    peaks = [row["GPU peak"] for row in json.loads(report.read_text())["rows"]]
    assert 0 < max(peaks) < 40


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed", "16-mixed"])
def test_a_run_learns_and_resumes_in_every_precision(
    root: Path, make_config: ConfigMaker, tmp_path: Path, precision: str
) -> None:
    config = make_config(
        data={"root": root}, accelerator="gpu", precision=precision, epochs=1, steps_per_epoch=12,
        optimiser={"lr": 3e-3, "schedule": "trapezoid", "ema": 0.5},
    )  # fmt: skip
    train, _ = split(list_cases(config.data), config.data)
    samples = load_samples(train, config, tmp_path / "cache", lambda _, __: None)
    fit(config, samples, [], tmp_path, Progress(12))
    longer = config.model_copy(update={"epochs": 2})
    fit(longer, samples, [], tmp_path, Progress(24, 12))
    saved = torch.load(tmp_path / STATE, weights_only=True)
    assert saved["step"] == 24
    assert saved["skipped"] <= 2, "a loss scaler finds its scale by overflowing"
    rows = (tmp_path / "steps.csv").read_text().splitlines()[1:]
    losses = [sum(map(float, row.split(",")[2:4])) for row in rows]
    assert sum(losses[-6:]) < sum(losses[:6])


def test_the_device_gives_the_logits_of_the_cpu(make_config: ConfigMaker) -> None:
    torch.manual_seed(0)
    config = make_config()
    net, patch = AQCFNet(config.network), config.modalities["ct"].patch
    batch = torch.rand(2, 1, *patch).numpy()
    found = TorchBackend(net.one_stream("ct"), patch).logits(batch)
    with torch.inference_mode():
        expected = net.one_stream("ct").eval()(torch.from_numpy(batch)).numpy()
    assert abs(found - expected).max() < 1e-2 * abs(expected).max()
