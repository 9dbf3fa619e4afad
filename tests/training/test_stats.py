"""Statistics against published worked examples, and against what they must do at their edges."""

import math

import numpy as np
import pytest

from model.errors import InputError
from training.stats import bonferroni, cohen_kappa, icc, summary, wilcoxon

# Shrout and Fleiss 1979, table 2: six targets (rows), four judges.
SHROUT_FLEISS = [
    [9, 2, 5, 8],
    [6, 1, 3, 2],
    [8, 4, 6, 8],
    [7, 1, 2, 6],
    [10, 5, 6, 9],
    [6, 2, 4, 7],
]
# "Is sex fun": answers of 91 husbands (rows) and wives; data set SexualFun of R's vcd 1.4.
SEXUAL_FUN = [[7, 7, 2, 3], [2, 8, 3, 7], [1, 5, 4, 9], [2, 8, 9, 14]]
# Hollander and Wolfe 1973, p. 29: depression before and after therapy; example of R's wilcox.test.
BEFORE = [1.83, 0.50, 1.62, 2.48, 1.68, 1.88, 1.55, 3.06, 1.30]
AFTER = [0.878, 0.647, 0.598, 2.05, 1.06, 1.29, 1.06, 3.14, 1.29]


def ratings(table: list[list[int]]) -> tuple[list[object], list[object]]:
    """Pairs of ratings that give this contingency table."""
    pairs = [(i, j) for i, row in enumerate(table) for j, n in enumerate(row) for _ in range(n)]
    return [one for one, _ in pairs], [two for _, two in pairs]


def test_icc_of_shrout_and_fleiss() -> None:
    """ICC(2,1), ICC(2,4) of their table 4; the limits as R's psych prints them for ``sf``."""
    found = icc(SHROUT_FLEISS)
    assert (found.targets, found.raters) == (6, 4)
    assert found.single.value == pytest.approx(0.29, abs=5e-3)
    assert found.average.value == pytest.approx(0.62, abs=5e-3)
    assert [found.single.low, found.single.high] == pytest.approx([0.019, 0.761], abs=5e-4)
    assert [found.average.low, found.average.high] == pytest.approx([0.071, 0.927], abs=5e-4)


def test_a_constant_offset_costs_agreement_as_mcgraw_and_wong_say() -> None:
    """McGraw and Wong 1996, p. 33: (2,4), (4,6), (6,8) agree to 0.67, consistent as they are."""
    assert icc([[2, 4], [4, 6], [6, 8]]).single.value == pytest.approx(2 / 3)


def test_the_limits_of_the_icc_hold_the_truth_as_often_as_they_say() -> None:
    rng = np.random.default_rng(3)
    n, k, (rows, columns, noise) = 25, 4, (2.0, 0.7, 1.0)
    truth = rows**2 / (rows**2 + columns**2 + noise**2)
    held = 0
    for _ in range(400):
        table = rng.normal(0, rows, (n, 1)) + rng.normal(0, columns, (1, k))
        limits = icc(table + rng.normal(0, noise, (n, k))).single
        held += limits.low <= truth <= limits.high
    assert 0.92 < held / 400 < 0.98


def test_perfect_agreement_has_no_width() -> None:
    found = icc([[1, 1], [4, 4], [9, 9]]).single
    assert (found.value, found.low, found.high) == (1.0, 1.0, 1.0)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ([[8, 8], [8, 8], [8, 8]], "every rating is 8"),
        ([[1.0, 2.0], [3.0, math.nan]], "row 2"),
        ([[1, 2], [3]], "no complete table"),
        ([[1, 2], [3, None]], "row 2"),
        ([[1], [2], [3]], "3 and 1"),
        ([[1, 2]], "1 and 2"),
    ],
)
def test_ratings_without_an_icc_are_refused(table: list[list[float]], message: str) -> None:
    with pytest.raises(InputError, match=message):
        icc(table)


def test_kappa_with_its_error_and_limits() -> None:
    """The example of ``ci.kappa`` in R's statpsych, after Fleiss and Paik 2003."""
    found = cohen_kappa(*ratings([[31, 12], [4, 58]]))
    assert found.kappa.value == pytest.approx(0.6756757, abs=1e-7)
    assert found.standard_error == pytest.approx(0.07344761, abs=1e-8)
    assert found.kappa.low == pytest.approx(0.5317210, abs=1e-7)
    assert found.kappa.high == pytest.approx(0.8196303, abs=1e-7)


@pytest.mark.parametrize(
    ("weights", "value", "error", "limits"),
    [
        ("none", 0.1293, 0.06860, (-0.005120399, 0.2637809)),
        ("linear", 0.2374, 0.07832, (0.083883432, 0.3908778)),
    ],
)
def test_weighted_kappa(
    weights: str, value: float, error: float, limits: tuple[float, float]
) -> None:
    """``Kappa(SexualFun)`` and its ``confint`` in R's vcd."""
    found = cohen_kappa(*ratings(SEXUAL_FUN), weights=weights)  # type: ignore[arg-type]
    assert found.kappa.value == pytest.approx(value, abs=5e-5)
    assert found.standard_error == pytest.approx(error, abs=5e-6)
    assert (found.kappa.low, found.kappa.high) == pytest.approx(limits, abs=1e-6)


def test_quadratic_kappa_is_the_icc_of_the_same_ratings() -> None:
    """Fleiss and Cohen 1973: equal to ICC(A,1) but for terms of order 1/n, so on many copies of a
    table to any precision; another way to the same number."""
    first, second = ratings([[40 * cell for cell in row] for row in SEXUAL_FUN])
    kappa = cohen_kappa(first, second, weights="quadratic").kappa.value
    assert kappa == pytest.approx(icc(np.column_stack([first, second])).single.value, abs=2e-4)


def test_categories_that_nobody_chose_still_count_for_the_weights() -> None:
    first, second = [1, 1, 3, 3], [1, 3, 3, 1]
    seen = cohen_kappa([1, 1, 2, 3], [1, 2, 2, 3], weights="linear").agreement
    wide = cohen_kappa(
        [1, 1, 2, 3], [1, 2, 2, 3], weights="linear", categories=range(1, 11)
    ).agreement
    assert seen == pytest.approx(1 - 0.25 / 2)
    assert wide == pytest.approx(1 - 0.25 / 9)
    assert cohen_kappa(first, second).kappa.value == pytest.approx(0.0)


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        ([1, 1, 1], [1, 1, 1], "one and the same category"),
        ([1, 0], [1], "2 and 1"),
        ([1, None], [1, 0], "row 2"),
        ([1.0, 0.0], [1.0, math.nan], "row 2"),
        ([1, "yes"], [1, 0], "cannot be ordered"),
    ],
)
def test_ratings_without_a_kappa_are_refused(
    first: list[object], second: list[object], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        cohen_kappa(first, second)


def test_a_rating_outside_the_categories_is_refused_by_row() -> None:
    with pytest.raises(InputError, match="row 2: 7"):
        cohen_kappa([1, 7], [1, 1], categories=[0, 1])


def test_wilcoxon_of_hollander_and_wolfe() -> None:
    """``wilcox.test(x, y, paired = TRUE, alternative = "greater")`` in R: V = 40, p = 0.01953."""
    found = wilcoxon(BEFORE, AFTER, alternative="greater")
    assert (found.statistic, found.n, found.zeros, found.exact) == (40.0, 9, 0, True)
    assert found.p == pytest.approx(0.01953, abs=5e-6)
    assert wilcoxon(BEFORE, AFTER).p == pytest.approx(2 * found.p)


def test_wilcoxon_of_darwins_corn() -> None:
    """Cross- less self-fertilised heights, the example of Wilcoxon's test in SciPy's manual."""
    gain = [6, 8, 14, 16, 23, 24, 28, 29, 41, -48, 49, 56, 60, -67, 75]
    found = wilcoxon(gain, np.zeros(15))
    assert 120 - found.statistic == 24.0
    assert found.p == pytest.approx(0.041259765625)


def test_equal_pairs_are_left_out_and_ties_are_exact() -> None:
    """Ranks of 1, 1, -2, 3 are 1.5, 1.5, 3, 4; of 16 signs, 12 are at least as far from 5."""
    found = wilcoxon([1, 1, 0, 3, 5], [0, 0, 2, 0, 5])
    assert (found.n, found.zeros, found.statistic, found.exact) == (4, 1, 7.0, True)
    sums = [sum(r for r, s in zip((1.5, 1.5, 3, 4), np.binary_repr(i, 4), strict=True) if s == "1")
            for i in range(16)]  # fmt: skip
    assert found.p == pytest.approx(2 * sum(s >= 7 for s in sums) / 16)


def test_rounding_noise_breaks_no_tie() -> None:
    """0.3 - 0.1 and 0.4 - 0.2 are not the same float."""
    assert wilcoxon([0.3, 0.4], [0.1, 0.2]).statistic == 3.0
    assert wilcoxon([0.3, 0.4, 0.1], [0.1, 0.2, 0.3]).statistic == 4.0


def test_five_folds_can_never_reach_five_percent() -> None:
    found = wilcoxon([0.8, 0.81, 0.82, 0.83, 0.84], [0.7, 0.7, 0.7, 0.7, 0.7])
    assert found.p == found.least_p == 0.0625


def test_many_pairs_go_by_the_normal_approximation() -> None:
    rng = np.random.default_rng(0)
    first = rng.normal(size=60)
    found = wilcoxon(first, first + rng.normal(0.1, 1, 60))
    assert not found.exact
    assert 0 < found.p < 1


def test_no_difference_at_all_is_no_evidence() -> None:
    found = wilcoxon([1, 2, 3], [1, 2, 3])
    assert (found.p, found.n, found.zeros) == (1.0, 0, 3)


def test_wilcoxon_refuses_what_is_not_paired_or_missing() -> None:
    with pytest.raises(InputError, match="2 and 1"):
        wilcoxon([1, 2], [1])
    with pytest.raises(InputError, match="second, row 2"):
        wilcoxon([1, 2], [1, math.nan])
    with pytest.raises(InputError, match="first"):
        wilcoxon([], [])


def test_bonferroni_multiplies_and_stops_at_one() -> None:
    """The p values of section 4.2.3: of three tests, 0.009 and 0.012 hold and 0.021 does not."""
    found = bonferroni([0.009, 0.012, 0.021])
    assert [item.p for item in found] == pytest.approx([0.027, 0.036, 0.063])
    assert [item.significant for item in found] == [True, True, False]
    assert bonferroni([0.6, 0.7])[0].p == 1.0
    assert bonferroni([]) == []


def test_summary_by_hand() -> None:
    found = summary([1, 2, 3, 4])
    assert (found.n, found.mean, found.median) == (4, 2.5, 2.5)
    assert (found.q1, found.q3) == (1.75, 3.25)
    assert found.sd == pytest.approx(math.sqrt(5 / 3))
    assert found.mean_sd() == "2.50 ± 1.29"
    assert math.isnan(summary([1]).sd)
    with pytest.raises(InputError, match="row 2"):
        summary([1, math.nan])
