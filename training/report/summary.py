"""The numbers of the tables: of each fold first, then over the folds (section 4.1.1)."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

import numpy as np

from model.types import MODALITIES

from .study import Score

CLASSES = ("liver", "tumour")
DICE = tuple(f"{kind}_dice" for kind in CLASSES)
METRICS = (
    *DICE,
    *(f"{kind}_{name}" for name in ("hd95_mm", "msd_mm") for kind in CLASSES),
)
PART = (25, 50, 75)  # percentiles of an interquartile range and its median


@dataclass(frozen=True)
class Spread:
    """Mean and sample standard deviation (n - 1) of the ``values`` of the folds; one fold has no
    deviation."""

    values: Mapping[int, float]

    @property
    def mean(self) -> float:
        return fmean(self.values.values())

    @property
    def sd(self) -> float | None:
        return stdev(self.values.values()) if len(self.values) > 1 else None


@dataclass(frozen=True)
class Change:
    """A variant against the main one, on the cases of the folds that both have scored."""

    own: Spread
    main: Spread
    cases: int

    @property
    def percent(self) -> float | None:
        return 100 * (self.own.mean / self.main.mean - 1) if self.main.mean else None


@dataclass(frozen=True)
class GateSpread:
    """Median and quartiles ``(Q1, median, Q3)`` of one stage, each direction; ``count`` pairs."""

    stage: int
    mr_to_ct: tuple[float, float, float]
    ct_to_mr: tuple[float, float, float]
    count: int


def fold_means(scores: Iterable[Score], metric: str) -> dict[int, float]:
    """The mean over the cases of each fold for which ``metric`` is known."""
    found: dict[int, list[float]] = defaultdict(list)
    for score in scores:
        if metric in score.values:
            found[score.fold].append(score.values[metric])
    return {fold: fmean(values) for fold, values in sorted(found.items())}


def over_folds(scores: Iterable[Score], metric: str) -> Spread | None:
    """None where no case knows ``metric``."""
    means = fold_means(scores, metric)
    return Spread(means) if means else None


def over_cases(scores: Iterable[Score], metric: str) -> Spread | None:
    """The same over all cases, whichever fold they are in."""
    values = [s.values[metric] for s in scores if metric in s.values]
    return Spread(dict(enumerate(values))) if values else None


def mean_dsc(scores: Sequence[Score]) -> Spread | None:
    """Of each fold the Dice of table 7: the mean over the modalities of the mean over the classes
    that are known of the mean over the fold's cases."""
    folds: dict[int, list[float]] = defaultdict(list)
    for modality in MODALITIES:
        own = [s for s in scores if s.modality == modality]
        classes = [fold_means(own, metric) for metric in DICE]
        for fold in sorted({s.fold for s in own}):
            known = [means[fold] for means in classes if fold in means]
            folds[fold] += [fmean(known)] if known else []
    means = {fold: fmean(values) for fold, values in sorted(folds.items()) if values}
    return Spread(means) if means else None


def change(own: Sequence[Score], main: Sequence[Score]) -> Change | None:
    """Table 7: a variant against the main one; None when they have no fold in common."""
    shared = {_key(s) for s in own} & {_key(s) for s in main}
    both = [mean_dsc([s for s in scores if _key(s) in shared]) for scores in (own, main)]
    if both[0] is None or both[1] is None:
        return None
    return Change(both[0], both[1], len(shared))


def paired(
    own: Sequence[Score], main: Sequence[Score], metric: str
) -> tuple[list[float], list[float]]:
    """The values of the cases that both have scored with the model of the same fold."""
    theirs = {_key(s): s.values[metric] for s in own if metric in s.values}
    pairs = [
        (s.values[metric], theirs[_key(s)])
        for s in main
        if metric in s.values and _key(s) in theirs
    ]
    return [a for a, _ in pairs], [b for _, b in pairs]


def gate_spreads(rows: Sequence[Mapping[str, str]]) -> list[GateSpread]:
    """Table 6 from the rows of ``gates.csv`` of all folds, by stage."""
    stages: dict[int, list[tuple[float, float]]] = defaultdict(list)
    for row in rows:
        stages[int(row["stage"])].append((float(row["mr_to_ct"]), float(row["ct_to_mr"])))
    return [
        GateSpread(
            stage,
            _quartiles([to_ct for to_ct, _ in pairs]),
            _quartiles([to_mr for _, to_mr in pairs]),
            len(pairs),
        )
        for stage, pairs in sorted(stages.items())
    ]


def _quartiles(values: Sequence[float]) -> tuple[float, float, float]:
    low, middle, high = np.percentile(values, PART)
    return float(low), float(middle), float(high)


def _key(score: Score) -> tuple[int, str]:
    return score.fold, score.case
