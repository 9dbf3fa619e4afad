"""The main variant against another one: Wilcoxon signed-rank tests (section 4.2.3)."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import fmean

from model.types import MODALITIES, Modality

from ..stats import bonferroni, wilcoxon
from .study import Score, Study, Variant
from .summary import METRICS, fold_means, paired

ALPHA = 0.05


@dataclass(frozen=True)
class Paired:
    """A two-sided test of ``count`` pairs; ``p`` is None where there are none."""

    count: int
    p: float | None
    significant: bool = False  # after the correction of its family


@dataclass(frozen=True)
class Comparison:
    """``difference``: main minus other, mean over the folds that both know."""

    variant: Variant
    modality: Modality
    metric: str
    difference: float
    folds: Paired
    cases: Paired


@dataclass(frozen=True)
class Family:
    """The comparisons that share one Bonferroni correction: one modality, one set of variants."""

    modality: Modality
    comparisons: tuple[Comparison, ...]

    @property
    def threshold(self) -> float:
        """What p has to reach: ``ALPHA`` over the number of comparisons."""
        return ALPHA / max(len(self.comparisons), 1)


def families(study: Study, variants: Sequence[Variant]) -> list[Family]:
    """One for each modality in which any of ``variants`` shares a fold with the main variant."""
    found = [(m, _comparisons(study, variants, m)) for m in MODALITIES]
    return [Family(m, tuple(_corrected(several))) for m, several in found if several]


def smallest_p(pairs: int) -> float:
    """The least a two-sided signed-rank test of so many pairs can give."""
    return float(2.0 ** (1 - pairs)) if pairs else 1.0


def _comparisons(study: Study, variants: Sequence[Variant], modality: Modality) -> list[Comparison]:
    main = study.scores(study.main, modality)
    found = [
        _compare(variant, modality, metric, main, study.scores(variant, modality))
        for variant in variants
        for metric in METRICS
    ]
    return [comparison for comparison in found if comparison is not None]


def _compare(
    variant: Variant,
    modality: Modality,
    metric: str,
    main: Sequence[Score],
    other: Sequence[Score],
) -> Comparison | None:
    ours, theirs = fold_means(main, metric), fold_means(other, metric)
    shared = sorted(ours.keys() & theirs.keys())
    if not shared:
        return None
    a, b = [ours[fold] for fold in shared], [theirs[fold] for fold in shared]
    difference = fmean(a) - fmean(b)
    cases = _signed_rank(*paired(other, main, metric))
    return Comparison(variant, modality, metric, difference, _signed_rank(a, b), cases)


def _signed_rank(a: Sequence[float], b: Sequence[float]) -> Paired:
    return Paired(len(a), wilcoxon(a, b).p if a else None)


def _corrected(comparisons: Sequence[Comparison]) -> list[Comparison]:
    """Bonferroni over all of them; a comparison without a test counts too."""
    folds, cases = (
        bonferroni([1.0 if test.p is None else test.p for test in tests], ALPHA)
        for tests in ([c.folds for c in comparisons], [c.cases for c in comparisons])
    )
    return [
        replace(
            comparison,
            folds=replace(comparison.folds, significant=by_fold.significant),
            cases=replace(comparison.cases, significant=by_case.significant),
        )
        for comparison, by_fold, by_case in zip(comparisons, folds, cases, strict=True)
    ]
