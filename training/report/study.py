"""A study's folder, read: what was asked for, and what its runs have left so far."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from functools import cached_property
from pathlib import Path
from typing import Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, ValidationError

from model.errors import ConfigError, InputError
from model.types import MODALITIES, Modality

from ..config import TrainConfig
from ..records import read_csv

STUDY_JSON, RUN_JSON, SCORES_CSV, GATES_CSV = "study.json", "run.json", "scores.csv", "gates.csv"
NUMBERS = (
    "liver_dice", "tumour_dice", "liver_hd95_mm", "tumour_hd95_mm", "liver_msd_mm",
    "tumour_msd_mm", "liver_ml", "reference_ml", "seconds",
)  # fmt: skip

Group: TypeAlias = Literal["main", "ablation", "option", "baseline"]


class Variant(BaseModel):
    """What was trained: ``name`` is its folder, ``title`` heads its row."""

    model_config = ConfigDict(frozen=True)

    name: str
    title: str
    group: Group


class Plan(BaseModel):
    """``study.json``: ``folds`` are the names of the cases each fold tests on; ``external`` maps
    the name of a further data set to its title; ``commands`` made the runs."""

    model_config = ConfigDict(frozen=True)

    name: str
    config: TrainConfig
    folds: tuple[tuple[str, ...], ...]
    variants: tuple[Variant, ...]
    external: dict[str, str] = {}
    commands: tuple[str, ...] = ()


@dataclass(frozen=True)
class Score:
    """One case by the model of one fold. ``values``: the ``NUMBERS`` that are known."""

    fold: int
    case: str
    modality: Modality
    quality: str
    values: Mapping[str, float]


@dataclass(frozen=True)
class Run:
    """One variant on one fold. ``facts`` is its ``run.json``, empty while there is none."""

    variant: str
    fold: int
    folder: Path
    facts: Mapping[str, object] = field(default_factory=dict)
    scores: tuple[Score, ...] = ()
    external: Mapping[str, tuple[Score, ...]] = field(default_factory=dict)
    scored_on: date | None = None


@dataclass(frozen=True)
class Study:
    folder: Path
    plan: Plan
    runs: tuple[Run, ...]

    @cached_property
    def main(self) -> Variant:
        """The variant the others are held against: of group ``main``, else the first."""
        variants = self.plan.variants
        return next((v for v in variants if v.group == "main"), variants[0])

    @property
    def methods(self) -> list[Variant]:
        """The rows of tables 2 to 5: the main variant and the baselines."""
        return [self.main, *self.others("baseline")]

    def others(self, *groups: Group) -> list[Variant]:
        return [v for v in self.plan.variants if v.group in groups and v != self.main]

    def runs_of(self, variant: Variant) -> list[Run]:
        return [run for run in self.runs if run.variant == variant.name]

    def scores(self, variant: Variant, modality: Modality | None = None) -> list[Score]:
        """On the folds' own test cases."""
        found = [score for run in self.runs_of(variant) for score in run.scores]
        return [s for s in found if modality in (None, s.modality)]

    def external(self, variant: Variant, name: str, modality: Modality) -> list[Score]:
        """On a further data set, by the model of every fold."""
        found = [s for run in self.runs_of(variant) for s in run.external.get(name, ())]
        return [s for s in found if s.modality == modality]


def read_study(folder: Path) -> Study:
    """Everything but curves and pictures; a run that has not started is there without content.
    Of a fold only the cases it tests on count: others may have steered the training.

    Raises ``ConfigError`` when ``study.json`` is missing, not valid or names no variant, and
    ``InputError`` (``invalid_scores``) that names a row which cannot be read.
    """
    plan = _plan(folder / STUDY_JSON)
    runs = [
        _run(folder / variant.name / f"fold_{fold}", variant, fold, plan)
        for variant in plan.variants
        for fold in range(len(plan.folds))
    ]
    return Study(folder, plan, tuple(runs))


def _plan(file: Path) -> Plan:
    try:
        plan = Plan.model_validate_json(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(
            f"{file}: {error.strerror}; make a study with aqcf-train crossval"
        ) from error
    except ValidationError as error:
        raise ConfigError(f"{file}: {error}") from error
    if not plan.variants:
        raise ConfigError(f"{file}: variants is empty; a study has at least one")
    return plan


def _run(folder: Path, variant: Variant, fold: int, plan: Plan) -> Run:
    scores, written = folder / SCORES_CSV, None
    if scores.is_file():
        written = datetime.fromtimestamp(scores.stat().st_mtime, UTC).date()
    return Run(
        variant.name, fold, folder, _facts(folder / RUN_JSON),
        tuple(s for s in read_scores(scores, fold) if s.case in plan.folds[fold]),
        {name: read_scores(folder / f"external_{name}.csv", fold) for name in plan.external},
        written,
    )  # fmt: skip


def _facts(file: Path) -> Mapping[str, object]:
    if not file.is_file():
        return {}
    try:
        facts = json.loads(file.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise InputError(f"{file}: {error}", code="invalid_run") from error
    if not isinstance(facts, dict):
        raise InputError(f"{file}: not an object", code="invalid_run")
    return facts


def read_scores(file: Path, fold: int) -> tuple[Score, ...]:
    """The rows of a ``scores.csv``; none when it does not exist.

    Raises ``InputError`` (``invalid_scores``) that names the row.
    """
    return tuple(
        _score(row, fold, f"{file}, row {number}")
        for number, row in enumerate(read_csv(file), start=1)
    )


def _score(row: Mapping[str, str], fold: int, where: str) -> Score:
    modality = next((m for m in MODALITIES if m == row.get("modality")), None)
    if modality is None or not row.get("case"):
        raise InputError(f"{where}: no case or no modality: {dict(row)}", code="invalid_scores")
    try:
        values = {name: float(row[name]) for name in NUMBERS if row.get(name)}
    except ValueError as error:
        raise InputError(f"{where}: {error}", code="invalid_scores") from error
    known = {name: value for name, value in values.items() if math.isfinite(value)}
    return Score(fold, row["case"], modality, row.get("quality") or "", known)
