"""The commands' work: a run's folder, from configuration to exported model."""

import json
import os
import shlex
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console

from model.errors import ConfigError
from model.export import export_model
from model.network import AQCFNet
from model.preprocess import prepare
from model.spec import ModelSpec
from model.types import Batch, Modality

from .card import may_be_shown, weights_licence, write_card
from .config import DataConfig, ExternalConfig, TrainConfig, load_config
from .data import TEST, Case, list_cases, load_samples, read_case, split
from .evaluate import CaseScore, draft_spec, evaluate, in_memory, picture_name
from .gates import measure_gates, write_gates
from .loop import BEST, STATE, fit
from .loop import WEIGHTS as LAST
from .methods import build_method, load_method
from .progress import Progress, score_table
from .ranks import check_machine, is_first
from .records import append_csv, read_csv
from .report.for_card import cross_validation

CONFIG, RECORD = "config.json", "run.json"
CACHE = "cache"
SCORES = "scores.csv"
PICTURES, MASKS = "pictures", "masks"


def train(
    config: TrainConfig, run: Path, *, cache: Path | None = None, threads: int | None = None
) -> Path:
    """Train or resume; returns the run's folder. Preprocessed cases are kept in ``cache``, beside
    the run where none is given. Of several processes the first one writes."""
    check_machine(config)
    run.mkdir(parents=True, exist_ok=True)
    if threads:
        torch.set_num_threads(threads)
    if is_first():
        (run / CONFIG).write_text(config.model_dump_json(indent=2) + "\n", encoding="utf-8")
    cases, validation = split(list_cases(config.data), config.data)
    with Progress(config.steps, _steps_done(run)) as progress:
        progress.console.print(f"{config.name}: {len(cases)} training cases, {_device(config)}")
        samples = load_samples(
            cases,
            config,
            cache or run.parent / CACHE,
            progress.loading,
            workers=os.cpu_count() or 1,
        )
        fit(config, samples, validation, run, progress)
    if is_first():
        record = json.dumps(_record(config, run), indent=1)
        (run / RECORD).write_text(record + "\n", encoding="utf-8")
    return run


def read_config(run: Path) -> TrainConfig:
    """The configuration a run was started with."""
    return load_config(run / CONFIG)


def read_record(run: Path) -> dict[str, Any]:
    """``run.json``: how the run was made; empty until it has ended."""
    file = run / RECORD
    return dict(json.loads(file.read_text(encoding="utf-8"))) if file.is_file() else {}


def _record(config: TrainConfig, run: Path) -> dict[str, Any]:
    net = build_method(config)
    return {
        "name": config.name,
        "method": config.method.name,
        "seed": config.seed,
        "steps": _steps_done(run),
        "parameters": sum(p.numel() for p in net.parameters()),
        "device": _device(config),
        "threads": torch.get_num_threads(),
        "precision": config.precision,
        "hours": round(_state(run).get("seconds", 0.0) / 3600, 3),
        "command": shlex.join(["aqcf-train", *sys.argv[1:]]),
        "torch": torch.__version__,
    }


def _steps_done(run: Path) -> int:
    return int(_state(run).get("step", 0))


def _state(run: Path) -> dict[str, Any]:
    """What ``state.pt`` holds; nothing before the first checkpoint."""
    file = run / STATE
    if not file.is_file():
        return {}
    return dict(torch.load(file, map_location="cpu", weights_only=True, mmap=True))


def _device(config: TrainConfig) -> str:
    count = config.devices * config.nodes
    if config.accelerator != "cpu" and torch.cuda.is_available():
        return f"{count} x {torch.cuda.get_device_name()}"
    threads = torch.get_num_threads()
    return f"{f'{count} x ' * (count > 1)}CPU, {threads} thread{'s' * (threads > 1)}"


def score_run(run: Path, *, weights: str, profile: str | None) -> list[CaseScore]:
    """Score held-out and test cases with a run's network; writes ``scores.csv``, masks, pictures,
    and the fusion gates."""
    config = read_config(run)
    cases = unseen_cases(config)
    scores = _score(run, config, cases, weights=weights, profile=profile)
    _write_scores(run / SCORES, scores)
    net = load_method(_weights(run, weights), config)
    if isinstance(net, AQCFNet) and config.network.cross_fusion:
        write_gates(run, measure_gates(net, cases, config))
    Console().print(score_table(scores, f"{config.name}: cases it never saw"))
    return scores


def score_external(
    run: Path, name: str, external: ExternalConfig, *, weights: str, profile: str | None
) -> list[CaseScore]:
    """Score a run's network, as it is, on another data set; writes ``external_NAME.csv``."""
    config = read_config(run)
    cases = external_cases(external)
    scores = _score(run, config, cases, weights=weights, profile=profile)
    _write_scores(run / f"external_{name}.csv", scores)
    Console().print(score_table(scores, f"{config.name} on {external.title or name}"))
    return scores


def external_cases(external: ExternalConfig) -> list[Case]:
    """Raises ``ConfigError`` for a case that its index does not name."""
    cases = list_cases(DataConfig(root=external.root, test_cases=external.cases))
    return [case for case in cases if not external.cases or case.name in external.cases]


def _score(
    run: Path, config: TrainConfig, cases: list[Case], *, weights: str, profile: str | None
) -> list[CaseScore]:
    net = load_method(_weights(run, weights), config)
    with Console().status("scoring") as status:
        return evaluate(
            in_memory(net, config), draft_spec(config), cases,
            lambda name: status.update(f"scoring {name}"),
            profile=profile, pictures=run / PICTURES, masks=run / MASKS,
        )  # fmt: skip


def _write_scores(path: Path, scores: list[CaseScore]) -> None:
    path.unlink(missing_ok=True)
    append_csv(path, [score.row() for score in scores])


def unseen_cases(config: TrainConfig) -> list[Case]:
    """Held-out cases and those that are for testing only; of a fold, those it names."""
    cases = list_cases(config.data)
    if config.data.test_cases:
        return [case for case in cases if case.name in config.data.test_cases]
    return [*split(cases, config.data)[1], *(case for case in cases if case.role == TEST)]


def export_run(
    run: Path, to: Path, *, weights: str, version: str, notes: Path | None = None,
    study: Path | None = None, torchscript: bool = False,
) -> ModelSpec:  # fmt: skip
    """Write a model folder with its card; refused when a graph does not equal the network.

    ``notes`` end the card; it tells the cross-validated scores of a ``study`` of the same recipe.
    """
    config = read_config(run)
    net = load_method(_weights(run, weights), config)
    if not isinstance(net, AQCFNet):
        raise ConfigError(f"{config.method.name!r} is a baseline; only A-QCF-Net is exported")
    cases = list_cases(config.data)
    train_cases, validation = split(cases, config.data)
    text = notes.read_text(encoding="utf-8") if notes else ""
    validated = cross_validation(study) if study else ""
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
        net, spec, to,
        real=real_patches(config, [*validation, *train_cases]), torchscript=torchscript,
    )  # fmt: skip
    shown = [picture_of(case, run) for case in unseen_cases(config) if may_be_shown(case)]
    pictures = [picture for picture in shown if picture.is_file()]
    write_card(to, spec, train_cases, scores, text, pictures, run, validated)
    Console().print(f"{to}: {spec.id} {spec.version}, largest difference {spec.export['reached']}")
    return spec


def picture_of(case: Case, run: Path) -> Path:
    return run / PICTURES / picture_name(case)


def real_patches(config: TrainConfig, cases: list[Case]) -> dict[Modality, list[Batch]]:
    """The middle patch of the first case of each modality."""
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
