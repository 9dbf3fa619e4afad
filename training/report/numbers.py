"""All numbers of a report as data: Dice from 0 to 1, distances in mm."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from model.types import MODALITIES, Modality

from .compare import Family, families
from .head import limits
from .study import Run, Score, Study
from .summary import METRICS, Spread, change, mean_dsc, over_cases, over_folds
from .tables import Method, external_sets, main_gates
from .wording import without_places


def numbers(study: Study) -> dict[str, Any]:
    """What ``report.json`` holds. Folds are keys of ``values``."""
    return {
        "name": study.plan.name,
        "folds": study.plan.folds,
        "variants": [variant.model_dump() for variant in study.plan.variants],
        "limits": limits(study),
        "comparison": {m: _methods(_own(study, m)) for m in MODALITIES},
        "external": {m: _external(study, m) for m in MODALITIES},
        "statistics": [
            {**_family(family), "against": group}
            for group, others in (
                ("baselines", study.others("baseline")),
                ("ablations and options", study.others("ablation", "option")),
            )
            for family in families(study, others)
        ],
        "gates": [asdict(spread) for spread in main_gates(study)],
        "ablations": _ablations(study),
        "runs": [_run(run) for run in study.runs],
        "cases": {
            variant.name: [_case(score) for score in study.scores(variant)]
            for variant in study.plan.variants
        },
    }


def _own(study: Study, modality: Modality) -> list[Method]:
    return [Method(v, study.scores(v, modality)) for v in study.methods]


def _methods(methods: Sequence[Method]) -> dict[str, Any]:
    return {
        method.variant.name: {
            metric: {
                "folds": _spread(over_folds(method.scores, metric)),
                "cases": _spread(over_cases(method.scores, metric), values=False),
            }
            for metric in METRICS
        }
        for method in methods
    }


def _external(study: Study, modality: Modality) -> dict[str, Any]:
    return {title: _methods(methods) for title, methods in external_sets(study, modality)}


def _family(family: Family) -> dict[str, Any]:
    return {
        "modality": family.modality,
        "threshold": family.threshold,
        "comparisons": [
            {**asdict(comparison), "variant": comparison.variant.name}
            for comparison in family.comparisons
        ],
    }


def _ablations(study: Study) -> dict[str, Any]:
    main = study.scores(study.main)
    found: dict[str, Any] = {study.main.name: {"mean_dsc": _spread(mean_dsc(main))}}
    for variant in study.others("ablation", "option"):
        against = change(study.scores(variant), main)
        found[variant.name] = against and {
            "mean_dsc": _spread(against.own),
            "main_there": _spread(against.main),
            "percent": against.percent,
            "cases": against.cases,
        }
    return found


def _spread(spread: Spread | None, *, values: bool = True) -> dict[str, Any] | None:
    if spread is None:
        return None
    found = {"mean": spread.mean, "sd": spread.sd, "count": len(spread.values)}
    return {**found, "values": dict(spread.values)} if values else found


def _run(run: Run) -> dict[str, Any]:
    facts = {k: without_places(v) if isinstance(v, str) else v for k, v in run.facts.items()}
    return {**facts, "variant": run.variant, "fold": run.fold, "scored": len(run.scores)}


def _case(score: Score) -> dict[str, Any]:
    return {
        "case": score.case, "fold": score.fold, "modality": score.modality,
        "quality": score.quality, **score.values,
    }  # fmt: skip
