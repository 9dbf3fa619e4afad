"""The commands' work: a run's folder, from configuration to exported model."""

from pathlib import Path

import torch

from .config import TrainConfig, load_config
from .data import list_cases, load_samples, split
from .loop import STATE, fit
from .progress import Progress

CONFIG = "config.json"
CACHE = "cache"


def train(config_path: Path, run: Path | None, *, epochs: int | None, threads: int | None) -> Path:
    """Train or resume; returns the run's folder."""
    config = load_config(config_path, {"epochs": epochs} if epochs else None)
    run = run or Path("runs") / config.name
    run.mkdir(parents=True, exist_ok=True)
    if threads:
        torch.set_num_threads(threads)
    (run / CONFIG).write_text(config.model_dump_json(indent=2) + "\n", encoding="utf-8")
    cases, validation = split(list_cases(config.data), config.data)
    start = _steps_done(run)
    with Progress(config.steps, start) as progress:
        progress.console.print(f"{config.name}: {len(cases)} training cases, {_device(config)}")
        samples = load_samples(cases, config, run.parent / CACHE, progress.loading)
        fit(config, samples, validation, run, progress)
    return run


def read_config(run: Path) -> TrainConfig:
    """The configuration a run was started with."""
    return load_config(run / CONFIG)


def _steps_done(run: Path) -> int:
    state = run / STATE
    if not state.is_file():
        return 0
    return int(torch.load(state, map_location="cpu", weights_only=True, mmap=True)["step"])


def _device(config: TrainConfig) -> str:
    if config.accelerator != "cpu" and torch.cuda.is_available():
        return f"{config.devices} x {torch.cuda.get_device_name()}"
    return f"CPU, {torch.get_num_threads()} threads"
