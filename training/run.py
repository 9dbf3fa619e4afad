"""The commands' work: a run's folder, from configuration to exported model."""

from pathlib import Path

import numpy as np
import torch
from rich.console import Console

from model.backends.torch import TorchBackend
from model.checkpoint import load_network
from model.errors import ConfigError
from model.export import export_model
from model.preprocess import prepare
from model.spec import ModelSpec
from model.types import Batch, Modality

from .card import may_be_shown, weights_licence, write_card
from .config import TrainConfig, load_config
from .data import Case, list_cases, load_samples, read_case, split
from .evaluate import CaseScore, draft_spec, evaluate, picture_name
from .loop import BEST, STATE, fit
from .loop import WEIGHTS as LAST
from .progress import Progress, score_table
from .report import append_csv, read_csv

CONFIG = "config.json"
CACHE = "cache"
SCORES = "scores.csv"
PICTURES = "pictures"


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


def score_run(run: Path, *, weights: str, profile: str | None) -> list[CaseScore]:
    """Score held-out and test cases with a run's network; writes ``scores.csv`` and pictures."""
    config = read_config(run)
    net = load_network(_weights(run, weights))
    backends = {m: TorchBackend(net.one_stream(m), s.patch) for m, s in config.modalities.items()}
    cases = unseen_cases(config)
    with Console().status("scoring") as status:
        scores = evaluate(
            lambda m: backends[m], draft_spec(config), cases,
            lambda name: status.update(f"scoring {name}"),
            profile=profile, pictures=run / PICTURES,
        )  # fmt: skip
    (run / SCORES).unlink(missing_ok=True)
    append_csv(run / SCORES, [score.row() for score in scores])
    Console().print(score_table(scores, f"{config.name}: cases it never saw"))
    return scores


def unseen_cases(config: TrainConfig) -> list[Case]:
    """Held-out cases and those that are for testing only."""
    cases = list_cases(config.data)
    return [*split(cases, config.data)[1], *(case for case in cases if case.role == "test")]


def export_run(
    run: Path, to: Path, *, weights: str, version: str, notes: Path | None, torchscript: bool
) -> ModelSpec:
    """Write a model folder with its card; refused when a graph does not equal the network."""
    config = read_config(run)
    cases = list_cases(config.data)
    train_cases, validation = split(cases, config.data)
    text = notes.read_text(encoding="utf-8") if notes else ""
    scores = read_csv(run / SCORES)
    spec = draft_spec(config, version=version).model_copy(
        update={
            "description": f"A-QCF-Net, configuration {config.name!r}. Research use only.",
            "licence": weights_licence(train_cases),
            "training": {
                "cases": [{"case": c.name, "licence": c.licence} for c in train_cases],
                "phantoms_per_modality": config.data.phantoms,
                "heads_per_modality": config.data.heads,
                "steps": _steps_done(run),
                "seed": config.seed,
            },
            "scores": {row.pop("case"): row for row in map(dict, scores)},
        }
    )
    spec = export_model(
        load_network(_weights(run, weights)), spec, to,
        real=real_patches(config, validation), torchscript=torchscript,
    )  # fmt: skip
    shown = [picture_of(case, run) for case in unseen_cases(config) if may_be_shown(case)]
    write_card(to, spec, train_cases, scores, text, [p for p in shown if p.is_file()], run)
    Console().print(f"{to}: {spec.id} {spec.version}, largest difference {spec.export['reached']}")
    return spec


def picture_of(case: Case, run: Path) -> Path:
    return run / PICTURES / picture_name(case)


def real_patches(config: TrainConfig, cases: list[Case]) -> dict[Modality, list[Batch]]:
    """The middle patch of one held-out case per modality."""
    patches: dict[Modality, list[Batch]] = {}
    for case in cases:
        spec = config.modalities[case.modality]
        if case.modality not in patches:
            array = prepare(read_case(case)[0], spec).array
            box = tuple(
                slice((n - p) // 2, (n - p) // 2 + p)
                for n, p in zip(array.shape, spec.patch, strict=True)
            )
            patches[case.modality] = [np.ascontiguousarray(array[box][None, None])]
    return patches


def _weights(run: Path, name: str) -> Path:
    files = {"best": BEST, "last": LAST}
    if name not in files:
        raise ConfigError(f"weights {name!r}: choose best or last")
    return run / files[name]
