"""The experiment (section 4.1.1): every variant trained on every fold, scored where it is blind.

A study's folder holds ``study.json`` and a run's folder for each ``VARIANT/fold_K``. A run that is
whole is not made again; one that was cut short goes on.
"""

import json
import shlex
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from pydantic import ValidationError
from rich.console import Console

from model.errors import AqcfError, ConfigError

from .config import TrainConfig
from .data import TEST, Case, list_cases
from .folds import Fold, make_folds
from .run import CACHE, SCORES, external_cases, read_record, score_external, score_run, train
from .variants import MAIN, applied, changed, chosen_variants, find_variant

STUDY = "study.json"


@dataclass(frozen=True)
class Study:
    """What ``study.json`` says: the base configuration and its folds. ``cache`` keeps preprocessed
    cases for all runs."""

    folder: Path
    config: TrainConfig
    folds: tuple[Fold, ...]
    cache: Path

    def run(self, variant: str, fold: int) -> Path:
        return self.folder / variant / f"fold_{fold}"

    def config_of(self, variant: str, fold: int) -> TrainConfig:
        """The configuration of one run: the variant's changes, the fold held out."""
        config = applied(self.config, find_variant(variant))
        return changed(
            config, {"name": f"{config.name}-{variant}-fold_{fold}", "data": self._held_out(fold)}
        )

    def _held_out(self, fold: int) -> dict[str, Fold]:
        names = self.folds[fold]
        data = {"exclude": (*self.config.data.exclude, *_kept_apart(self.config))}
        if self.config.protocol.validation == "fold":
            return {**data, "validate_cases": names, "test_cases": ()}
        return {**data, "validate_cases": self._inner(fold), "test_cases": names}

    def _inner(self, fold: int) -> Fold:
        """About ``inner_share`` of the other patients, stratified as the folds are."""
        rest = [c for c in _usable(self.config) if c.name not in self.folds[fold]]
        by_modality = Counter(modality for _, modality in {(c.patient, c.modality) for c in rest})
        count = min(round(1 / self.config.protocol.inner_share), *by_modality.values())
        if count < 2:
            raise ConfigError(
                f"fold {fold} leaves too few patients for inner validation: {dict(by_modality)}; "
                "protocol.validation 'fold' does without"
            )
        return make_folds(rest, count, self.config.seed)[0]


Launcher: TypeAlias = Callable[[Study, str, int, int | None], None]


class RunFailedError(AqcfError):
    """A run of a study did not end well; the others are not touched by it."""

    code = "run_failed"


def crossval(
    config: TrainConfig, folder: Path, *, cache: Path | None = None,
    folds: Sequence[int] | None = None, threads: int | None = None,
    launch: Launcher | None = None,
) -> Study:  # fmt: skip
    """Make what is missing of the study in ``folder``; ``folds`` limits which.

    Several machines can share a study's folder, each with variants or folds of its own. Each run
    is a process of its own unless ``launch`` says otherwise.

    Raises ``ConfigError`` for a study that was begun with another configuration, a fold that is
    not there, and a protocol that would choose by the test fold; ``RunFailedError`` naming a run.
    """
    check_protocol(config)
    variants = chosen_variants(config)
    study = open_study(config, folder, cache)
    chosen = list(range(len(study.folds))) if folds is None else list(folds)
    if not set(chosen) <= set(range(len(study.folds))):
        raise ConfigError(f"folds {chosen}: the study has folds 0 to {len(study.folds) - 1}")
    runs = [(variant, fold) for variant in variants for fold in chosen]
    for number, (variant, fold) in enumerate(runs, start=1):
        Console().rule(f"run {number} of {len(runs)}: {variant.title}, fold {fold}")
        if not is_whole(study, variant.name, fold):
            (launch or _in_a_process)(study, variant.name, fold, threads)
    return study


def check_protocol(config: TrainConfig) -> None:
    """Refuse a protocol in which the test fold chooses weights or steers the schedule."""
    rules = config.protocol
    chooses = rules.weights == "best" or config.optimiser.schedule == "plateau"
    if rules.validation == "fold" and chooses:
        raise ConfigError(
            "protocol.validation 'fold' would let the test fold choose: set it to 'inner', or "
            "use weights 'last' and a schedule that validation does not steer"
        )


def open_study(config: TrainConfig, folder: Path, cache: Path | None = None) -> Study:
    """Begin a study, or go on with it: its folds stay as they were drawn. ``cache``: by default in
    its folder."""
    cache = cache or folder / CACHE
    file = folder / STUDY
    if file.is_file():
        study = read_study(folder, cache)
        if _essence(study.config) != _essence(config):
            raise ConfigError(
                f"{file} was begun with another configuration; choose another --study folder"
            )
        study = Study(folder, config, study.folds, cache)
    else:
        folds = make_folds(_usable(config), config.protocol.folds, config.seed)
        study = Study(folder, config, tuple(folds), cache)
    _write(study)
    return study


def read_study(folder: Path, cache: Path | None = None) -> Study:
    """Raises ``ConfigError`` when ``folder`` holds no study."""
    file = folder / STUDY
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
        config = TrainConfig.model_validate(values["config"])
        folds = tuple(tuple(names) for names in values["folds"])
        return Study(folder, config, folds, cache or folder / CACHE)
    except (OSError, ValueError, KeyError, ValidationError) as error:
        raise ConfigError(f"{file} is not a study: {error}") from error


def is_whole(study: Study, variant: str, fold: int) -> bool:
    """Whether the run was trained to its end and scored on everything."""
    run = study.run(variant, fold)
    steps = study.config_of(variant, fold).steps
    scored = [SCORES, *(f"external_{name}.csv" for name in study.config.protocol.external)]
    trained = int(read_record(run).get("steps", 0)) >= steps
    return trained and all((run / file).is_file() for file in scored)


def run_fold(study: Study, variant: str, fold: int, threads: int | None) -> None:
    """Train and score one run of a study, in this process."""
    run, rules = study.run(variant, fold), study.config.protocol
    config = study.config_of(variant, fold)
    train(config, run, cache=study.cache, threads=threads)
    score_run(run, weights=rules.weights, profile=rules.profile)
    for name, external in rules.external.items():
        score_external(run, name, external, weights=rules.weights, profile=rules.profile)


def _in_a_process(study: Study, variant: str, fold: int, threads: int | None) -> None:
    """Memory is given back whatever happens, and several devices can be started for each run."""
    words = ["fold", str(study.folder), variant, str(fold), "--cache", str(study.cache)]
    if threads:
        words += ["--threads", str(threads)]
    done = subprocess.run([sys.executable, "-m", "training", *words], check=False)  # noqa: S603
    if done.returncode:
        raise RunFailedError(
            f"{variant}, fold {fold} ended with exit code {done.returncode}; the same command "
            "goes on from its last checkpoint"
        )


def _usable(config: TrainConfig) -> list[Case]:
    apart = _kept_apart(config)
    return [case for case in list_cases(config.data) if case.name not in apart]


def _kept_apart(config: TrainConfig) -> Fold:
    """Cases of patients that only ever test, by their role or as an external set of this root."""
    cases = list_cases(config.data)
    external = [e for e in config.protocol.external.values() if _same_folder(e.root, config)]
    names = {case.name for e in external for case in external_cases(e)}
    patients = {case.patient for case in cases if case.role == TEST or case.name in names}
    return tuple(case.name for case in cases if case.patient in patients)


def _same_folder(root: Path, config: TrainConfig) -> bool:
    return root.resolve() == config.data.root.resolve()


def _essence(config: TrainConfig) -> dict[str, Any]:
    """What must not change while a study goes on; variants and test sets may be added."""
    values = config.model_dump(mode="json", exclude={"protocol": {"variants", "external"}})
    return {
        name: values[name] for name in values if name not in ("accelerator", "devices", "nodes")
    }


def _write(study: Study) -> None:
    """Variants and commands that were there before are kept: another machine may be at work."""
    file = study.folder / STUDY
    before = json.loads(file.read_text("utf-8")) if file.is_file() else {}
    names = [entry["name"] for entry in before.get("variants", [])]
    names = [MAIN, *names, *(variant.name for variant in chosen_variants(study.config))]
    found = [find_variant(name) for name in dict.fromkeys(names)]
    commands = [*before.get("commands", []), shlex.join(["aqcf-train", *sys.argv[1:]])]
    values = {
        "name": study.config.name,
        "config": study.config.model_dump(mode="json"),
        "folds": study.folds,
        "variants": [{"name": v.name, "title": v.title, "group": v.group} for v in found],
        "external": {n: e.title or n for n, e in study.config.protocol.external.items()},
        "commands": list(dict.fromkeys(commands)),
    }
    study.folder.mkdir(parents=True, exist_ok=True)
    partial = file.with_suffix(".partial")
    partial.write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")
    partial.replace(file)
