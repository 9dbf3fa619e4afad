"""A study in a few lines of Markdown, for the card of a model of the same recipe."""

from collections.abc import Sequence
from pathlib import Path
from statistics import median

from model.errors import ConfigError
from model.types import MODALITIES

from .study import Score, Study, read_study
from .summary import over_folds

_METRICS = (
    ("liver Dice", "liver_dice", 3),
    ("HD95 mm", "liver_hd95_mm", 1),
    ("mean surface mm", "liver_msd_mm", 2),
    ("tumour Dice", "tumour_dice", 3),
)
_NAMES = tuple(name for name, _, _ in _METRICS)


def cross_validation(folder: Path) -> str:
    """The section of the main variant of the study in ``folder``.

    Raises ``ConfigError`` while a fold has not been scored.
    """
    study = read_study(folder)
    scores = sorted(study.scores(study.main), key=lambda score: score.case)
    missing = set(range(len(study.plan.folds))) - {score.fold for score in scores}
    if missing:
        raise ConfigError(f"{folder}: folds {sorted(missing)} are not scored; run crossval")
    overview = [_over_folds(modality, scores) for modality in MODALITIES]
    parts = [
        "\n## Cross-validated scores\n",
        _told(study),
        _table(("modality", "cases", *_NAMES, "liver Dice, median case"), overview),
        "<details><summary>Each case</summary>\n",
        _table(("case", "fold", *_NAMES), [_of_case(score) for score in scores]),
        "</details>\n",
    ]
    return "\n".join(parts)


def _told(study: Study) -> str:
    steps = sorted({str(run.facts.get("steps", "?")) for run in study.runs_of(study.main)})
    return (
        f"The recipe, trained {' or '.join(steps)} steps on each of {len(study.plan.folds)} folds: "
        "a case is scored by a network that never saw its patient, and it chose nothing. "
        "Mean ± SD over the folds that know the metric. Made by `aqcf-train crossval`.\n"
    )


def _over_folds(modality: str, scores: Sequence[Score]) -> list[str]:
    own = [score for score in scores if score.modality == modality]
    middle = median(score.values["liver_dice"] for score in own)
    return [modality.upper(), str(len(own)), *(_spread(own, m, n) for _, m, n in _METRICS),
            f"{middle:.3f}"]  # fmt: skip


def _spread(scores: Sequence[Score], metric: str, digits: int) -> str:
    spread = over_folds(scores, metric)
    if spread is None:
        return "-"
    sd = "" if spread.sd is None else f" ± {spread.sd:.{digits}f}"
    return f"{spread.mean:.{digits}f}{sd}"


def _of_case(score: Score) -> list[str]:
    known = (
        f"{score.values[metric]:.{digits}f}" if metric in score.values else "-"
        for _, metric, digits in _METRICS
    )  # fmt: skip
    return [score.case, str(score.fold), *known]


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)
