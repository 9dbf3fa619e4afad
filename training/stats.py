"""The paper's statistics (sections 4.1.1 and 4.1.2): agreement of raters, paired tests, summaries.

Missing values are refused, never dropped: every ``InputError`` names the row, counted from 1.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from model.errors import InputError

Weights: TypeAlias = Literal["none", "linear", "quadratic"]
Alternative: TypeAlias = Literal["two-sided", "greater", "less"]
Floats: TypeAlias = NDArray[np.float64]

_EXACT_UP_TO = 50  # pairs; beyond that the normal approximation is as good
_EXACT_TIES_UP_TO = 13  # pairs; 2**13 signs are still tried one by one
_DECIMALS = 12  # of a difference: what floating point adds must not break a tie


@dataclass(frozen=True)
class Interval:
    """An estimate and its confidence limits; a limit that is not defined is NaN."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.2f} ({self.low:.2f} to {self.high:.2f})"


@dataclass(frozen=True)
class ICC:
    """``single``: ICC(A,1), the agreement of one rater's scores; ``average``: ICC(A,k), of the mean
    of all k. Shrout and Fleiss call them ICC(2,1) and ICC(2,k)."""

    single: Interval
    average: Interval
    targets: int
    raters: int


@dataclass(frozen=True)
class Kappa:
    """Cohen's kappa with its large-sample standard error and confidence limits."""

    kappa: Interval
    standard_error: float
    agreement: float  # the observed (weighted) share of agreement
    n: int


@dataclass(frozen=True)
class Wilcoxon:
    """``n``: pairs that differ. ``zeros``: pairs that do not, left out. ``least_p``: the smallest p
    that ``n`` pairs can reach; above the level asked for, the test cannot reject whatever is seen.
    """

    statistic: float  # the sum of the ranks of positive differences
    p: float
    n: int
    zeros: int
    exact: bool
    least_p: float


@dataclass(frozen=True)
class Corrected:
    """One of several p values after Bonferroni; ``p`` is multiplied by their number, at most 1."""

    p: float
    significant: bool


@dataclass(frozen=True)
class Summary:
    """``sd`` is that of a sample (n - 1), NaN for one value; quartiles interpolate linearly."""

    n: int
    mean: float
    sd: float
    median: float
    q1: float
    q3: float

    def mean_sd(self, digits: int = 2) -> str:
        return f"{self.mean:.{digits}f} ± {self.sd:.{digits}f}"


def icc(ratings: ArrayLike, *, level: float = 0.95) -> ICC:
    """Intraclass correlation: two-way random effects, absolute agreement.

    ``ratings``: ``(targets, raters)``, complete. With the mean squares of rows R, columns C and
    error E of the two-way analysis of variance (McGraw and Wong 1996, table 4)

        ICC(A,1) = (R - E) / (R + (k-1) E + k/n (C - E)),  ICC(A,k) = (R - E) / (R + (C - E)/n)

    and the limits of their table 7, which are Shrout and Fleiss's (1979).

    Raises ``InputError`` for fewer than two targets or raters, a value that is missing, and
    ratings that are all equal (``undefined_agreement``).
    """
    table = _complete(ratings, "ratings", 2)
    n, k = table.shape
    if n < 2 or k < 2:
        raise InputError(f"agreement needs 2 targets and 2 raters; there are {n} and {k}")
    if (table == table[0, 0]).all():
        raise InputError(
            f"every rating is {table[0, 0]:g}; the ICC is not defined without variation",
            code="undefined_agreement",
        )
    rows, columns, error = _mean_squares(table)
    single = (rows - error) / (rows + (k - 1) * error + k / n * (columns - error))
    low, high = _icc_limits(single, rows, columns, error, n, k, level)
    ends = [_of_average(value, k) for value in (single, low, high)]
    return ICC(Interval(single, low, high), Interval(*ends), n, k)


def cohen_kappa(
    first: Sequence[object],
    second: Sequence[object],
    *,
    weights: Weights = "none",
    categories: Sequence[object] | None = None,
    level: float = 0.95,
) -> Kappa:
    """Cohen's kappa of two raters (Cohen 1960; weighted: Cohen 1968).

    ``weights``: with c categories in order, agreement between the i-th and the j-th counts
    1 - |i-j|/(c-1) (linear) or 1 - (i-j)^2/(c-1)^2 (quadratic). ``categories``: all of them in
    order; without it those that occur, sorted. The standard error is that of Fleiss, Cohen and
    Everitt (1969) for a kappa that is not 0; the limits end at -1 and 1.

    Raises ``InputError`` for ratings of unequal number, none, a missing one or one outside
    ``categories``, and when both raters always say one and the same (``undefined_agreement``).
    """
    table = _crossed(first, second, categories)
    n = int(table.sum())
    share = table / n
    credit = _credit(len(table), weights)
    by_first, by_second = share.sum(axis=1), share.sum(axis=0)
    seen = float((credit * share).sum())
    expected = float(by_first @ credit @ by_second)
    if math.isclose(expected, 1.0):
        raise InputError(
            "both raters gave one and the same category to every case; kappa is not defined",
            code="undefined_agreement",
        )
    kappa = (seen - expected) / (1 - expected)
    rivals = (credit @ by_second)[:, None] + (by_first @ credit)[None, :]
    spread = (share * (credit * (1 - expected) - rivals * (1 - seen)) ** 2).sum()
    variance = (spread - (seen * expected - 2 * expected + seen) ** 2) / (n * (1 - expected) ** 4)
    error = math.sqrt(max(float(variance), 0.0))
    reach = float(stats.norm.ppf((1 + level) / 2)) * error
    interval = Interval(kappa, max(kappa - reach, -1.0), min(kappa + reach, 1.0))
    return Kappa(interval, error, seen, n)


def wilcoxon(
    first: ArrayLike, second: ArrayLike, *, alternative: Alternative = "two-sided"
) -> Wilcoxon:
    """Wilcoxon's signed-rank test of ``first - second``, paired (section 4.1.1).

    Pairs without a difference are left out (Wilcoxon 1945); equal differences share their mean
    rank. The null distribution is exact for up to 50 pairs, with ties for up to 13; beyond that a
    normal approximation with continuity and tie correction. Differences are rounded to 12
    decimals. All pairs equal: p = 1.

    Raises ``InputError`` for unequal lengths, no pairs, a missing value.
    """
    a, b = _complete(first, "first", 1), _complete(second, "second", 1)
    if a.shape != b.shape:
        raise InputError(f"the test is paired; there are {len(a)} and {len(b)} values")
    differences = np.round(a - b, _DECIMALS)
    some = differences[differences != 0]
    n, zeros = len(some), len(a) - len(some)
    if n == 0:
        return Wilcoxon(0.0, 1.0, 0, zeros, True, 1.0)
    tied = len(np.unique(np.abs(some))) < n
    exact = n <= (_EXACT_TIES_UP_TO if tied else _EXACT_UP_TO)
    how = "asymptotic" if not exact else stats.PermutationMethod() if tied else "exact"
    tested = stats.wilcoxon(some, alternative=alternative, method=how, correction=not exact)
    positive = float(stats.rankdata(np.abs(some))[some > 0].sum())
    least = (2.0 if alternative == "two-sided" else 1.0) / 2.0**n
    return Wilcoxon(positive, float(tested.pvalue), n, zeros, exact, min(least, 1.0))


def bonferroni(ps: Sequence[float], alpha: float = 0.05) -> list[Corrected]:
    """Each p value times their number, and whether that is at most ``alpha``."""
    corrected = [min(1.0, p * len(ps)) for p in ps]
    return [Corrected(p, p <= alpha) for p in corrected]


def summary(values: ArrayLike) -> Summary:
    """Mean, SD, median and quartiles. Raises ``InputError`` for no value or a missing one."""
    known = _complete(values, "values", 1)
    q1, median, q3 = (float(q) for q in np.percentile(known, [25, 50, 75]))
    sd = float(known.std(ddof=1)) if len(known) > 1 else math.nan
    return Summary(len(known), float(known.mean()), sd, median, q1, q3)


def _complete(values: ArrayLike, name: str, dimensions: int) -> Floats:
    """The values as floats; refused when one is missing, none is there or rows differ in length."""
    try:
        table = np.asarray(values, np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(f"{name} are no complete table of numbers: {error}") from error
    if table.ndim != dimensions or not table.size:
        raise InputError(f"{name} of shape {table.shape}; {dimensions} axes with values are needed")
    bad = np.flatnonzero(~np.isfinite(table.reshape(len(table), -1)).all(axis=1))
    if bad.size:
        raise InputError(f"{name}, row {bad[0] + 1}: a value is missing or not finite")
    return table


def _mean_squares(table: Floats) -> tuple[float, float, float]:
    """Of rows, columns and error, in a two-way layout with one value a cell."""
    n, k = table.shape
    middle, of_rows, of_columns = table.mean(), table.mean(axis=1), table.mean(axis=0)
    rest = table - of_rows[:, None] - of_columns[None, :] + middle
    rows = k * float(((of_rows - middle) ** 2).sum()) / (n - 1)
    columns = n * float(((of_columns - middle) ** 2).sum()) / (k - 1)
    return rows, columns, float((rest**2).sum()) / ((n - 1) * (k - 1))


def _icc_limits(
    single: float, rows: float, columns: float, error: float, n: int, k: int, level: float
) -> tuple[float, float]:
    """Of ICC(A,1), with Satterthwaite's degrees of freedom for the mix of columns and error."""
    if math.isclose(single, 1.0, rel_tol=1e-12):
        return 1.0, 1.0
    a = k * single / (n * (1 - single))
    b = 1 + k * single * (n - 1) / (n * (1 - single))
    parts = (a * columns) ** 2 / (k - 1) + (b * error) ** 2 / ((n - 1) * (k - 1))
    freedom = (a * columns + b * error) ** 2 / parts if parts > 0 else 0.0
    if not freedom > 0:
        return math.nan, math.nan
    quantile = (1 + level) / 2
    above = float(stats.f.ppf(quantile, n - 1, freedom))
    below = float(stats.f.ppf(quantile, freedom, n - 1))
    mix = k * columns + (k * n - k - n) * error
    low = n * (rows - above * error) / (above * mix + n * rows)
    high = n * (below * rows - error) / (mix + n * below * rows)
    return low, high


def _of_average(single: float, k: int) -> float:
    """Spearman-Brown: the reliability of the mean of k raters from that of one."""
    below = 1 + (k - 1) * single
    return k * single / below if below else -math.inf


def _crossed(
    first: Sequence[object], second: Sequence[object], categories: Sequence[object] | None
) -> Floats:
    """The contingency table; rows are the first rater's categories."""
    if len(first) != len(second) or not len(first):
        raise InputError(f"kappa needs pairs; there are {len(first)} and {len(second)} ratings")
    for row, pair in enumerate(zip(first, second, strict=True), 1):
        if any(value is None or value != value for value in pair):  # noqa: PLR0124  NaN
            raise InputError(f"row {row}: a rating is missing")
    order = list(categories) if categories is not None else _sorted({*first, *second})
    places = {value: place for place, value in enumerate(order)}
    table = np.zeros((len(order), len(order)))
    for row, (one, two) in enumerate(zip(first, second, strict=True), 1):
        if one not in places or two not in places:
            raise InputError(f"row {row}: {one!r}, {two!r} are not both among {order}")
        table[places[one], places[two]] += 1
    return table


def _sorted(values: set[object]) -> list[object]:
    try:
        return sorted(values)  # type: ignore[type-var]
    except TypeError as error:
        raise InputError(f"ratings of several kinds cannot be ordered: {error}") from error


def _credit(count: int, weights: Weights) -> Floats:
    """How much agreement each pair of categories counts, ``(count, count)``."""
    if weights == "none" or count < 2:
        return np.eye(count)
    place = np.arange(count)
    apart: Floats = np.abs(place[:, None] - place[None, :]) / (count - 1)
    credit: Floats = 1.0 - (apart if weights == "linear" else apart**2)
    return credit
