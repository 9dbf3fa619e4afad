"""Real processes: two that train as one, and one that is killed and goes on."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from training.board import BOARD
from training.config import TrainConfig
from training.data import list_cases, load_samples, split
from training.loop import STATE, fit
from training.progress import Progress
from training.records import read_csv

ConfigMaker = Callable[..., TrainConfig]
HELD_OUT = ("ct/b", "mr/a", "mr/b")  # and mr/c, the same person as mr/a


def nothing(done: int, total: int) -> None:
    pass


def written(config: TrainConfig, folder: Path) -> Path:
    path = folder / "config.yaml"  # JSON is YAML
    path.write_text(config.model_dump_json(), "utf-8")
    return path


def aqcf_train(config: TrainConfig, folder: Path) -> subprocess.Popen[str]:
    """``aqcf-train fit``, one thread a process."""
    command = ["fit", str(written(config, folder)), "--run", str(folder / "run")]
    return subprocess.Popen(
        [sys.executable, "-m", "training", *command],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def fitted(config: TrainConfig, folder: Path) -> Path:
    """The same in this process."""
    train, validation = split(list_cases(config.data), config.data)
    samples = load_samples(train, config, folder / "cache", nothing)
    run = folder / "run"
    run.mkdir(exist_ok=True)
    with Progress(config.steps) as progress:
        fit(config, samples, validation, run, progress)
    return run


def state(run: Path) -> dict[str, Any]:
    saved: dict[str, Any] = torch.load(run / STATE, weights_only=True)
    return saved


def gradients(run: Path) -> list[torch.Tensor]:
    """Of a run of one step: AdamW's moments hold a tenth of them."""
    return [s["exp_avg"] / 0.1 for s in state(run)["optimiser"]["state"].values()]


@dataclass(frozen=True)
class Twins:
    """The same run by two processes and by one, and what the two printed."""

    two: Path
    one: Path
    gradients: tuple[list[torch.Tensor], list[torch.Tensor]]
    output: str


@pytest.fixture(scope="module")
def twins(root: Path, make_config: ConfigMaker, tmp_path_factory: pytest.TempPathFactory) -> Twins:
    """A step by two processes with two batches of one pair, by one with two of two pairs; then two
    more after a resumption. Label qualities differ; exchange is dropped now and then. A larger norm
    epsilon: with the usual one rounding alone parts the gradients by 1e-5."""
    if (os.cpu_count() or 1) < 2:
        pytest.skip("two processes need two cores")
    config = make_config(
        data={"root": root, "validate_cases": HELD_OUT}, epochs=1, steps_per_epoch=1, seed=1,
        network={"widths": (1, 2, 2, 2, 4), "bottleneck": 4, "norm_eps": 0.01},
        optimiser={"lr": 3e-5, "ema": 0.5}, accumulate=2, exchange_dropout=0.5,
    )  # fmt: skip
    two, one = (tmp_path_factory.mktemp(name) for name in ("two", "one"))
    outputs, found = [], []
    for epochs in (1, 3):
        longer = config.model_copy(update={"epochs": epochs})
        process = aqcf_train(longer.model_copy(update={"devices": 2}), two)
        fitted(longer.model_copy(update={"batch_size": 2}), one)
        outputs.append(process.communicate(timeout=300)[0])
        assert process.returncode == 0, outputs
        found.append((gradients(two / "run"), gradients(one / "run")))
    return Twins(two / "run", one / "run", found[0], outputs[-1])


def test_two_processes_have_the_gradients_of_one(twins: Twins) -> None:
    found, expected = twins.gradients
    assert max(float(g.abs().max()) for g in expected) > 0.1, "or all would be equal"
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


def test_two_processes_reach_the_weights_of_one(twins: Twins) -> None:
    found, expected = (state(run) for run in (twins.two, twins.one))
    for part in ("net", "average"):
        torch.testing.assert_close(dict(found[part]), dict(expected[part]), rtol=0, atol=1e-5)
    assert found["step"] == expected["step"] == 3


def test_two_processes_share_the_validation_and_log_the_whole_batch(
    twins: Twins,
) -> None:
    for name, columns in (
        ("validation.csv", ("liver_dice", "tumour_dice")),
        ("steps.csv", ("lr", "ct", "mr", "dice_ct", "dice_mr")),
    ):
        found, expected = (read_csv(run / name) for run in (twins.two, twins.one))
        keys = [[(row["step"], row.get("case")) for row in rows] for rows in (found, expected)]
        assert keys[0] == keys[1]
        for ours, theirs in zip(found, expected, strict=True):
            for column in columns:
                a, b = ours[column], theirs[column]
                assert a == b or float(a) == pytest.approx(float(b), abs=2e-3)
    cases = [row["case"] for row in read_csv(twins.two / "validation.csv")]
    assert cases == 3 * ["ct/b", "mr/a", "mr/b", "mr/c"]


def test_the_first_process_alone_speaks_and_writes(twins: Twins) -> None:
    assert twins.output.count("tiny: ") == 1
    assert twins.output.count("validation at step 3") == 1
    assert len(list((twins.two / BOARD).iterdir())) == 2, "one file for each start"
    assert not list(twins.two.glob("*.partial"))


def kill_after(process: subprocess.Popen[str], run: Path, step: int, seconds: float) -> None:
    """SIGKILL once ``step`` is saved, and ``seconds`` more."""
    while process.poll() is None and not ((run / STATE).is_file() and state(run)["step"] >= step):
        time.sleep(0.01)
    time.sleep(seconds)
    process.kill()
    output, _ = process.communicate()
    assert process.returncode == -signal.SIGKILL, output


def test_a_run_killed_at_random_moments_ends_with_the_weights_of_an_unbroken_one(
    root: Path, make_config: ConfigMaker, tmp_path: Path
) -> None:
    config = make_config(
        data={"root": root}, epochs=2, steps_per_epoch=30, checkpoint_every=2,
        optimiser={"lr": 1e-2, "ema": 0.9, "schedule": "trapezoid", "cooldown": 20},
        exchange_dropout=0.5,
    )  # fmt: skip
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    whole.mkdir()
    broken.mkdir()
    fitted(config, whole)
    seed = int(np.random.default_rng().integers(2**32))
    rng = np.random.default_rng(seed)
    for first in (1, 20):
        process = aqcf_train(config, broken)
        kill_after(process, broken / "run", first + int(rng.integers(15)), rng.uniform(0, 0.1))
    fitted(config, broken)
    found, expected = state(broken / "run"), state(whole / "run")
    for part in ("net", "average"):
        torch.testing.assert_close(
            dict(found[part]), dict(expected[part]), rtol=0, atol=0, msg=f"{part}, seed {seed}"
        )
    moments = found["optimiser"]["state"], expected["optimiser"]["state"]
    torch.testing.assert_close(*moments, rtol=0, atol=0, msg=f"moments, seed {seed}")
    texts = [(folder / "run" / "steps.csv").read_text() for folder in (broken, whole)]
    assert texts[0] == texts[1], f"seed {seed}"
