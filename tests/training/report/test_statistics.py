"""Section 4.2.3 on the study that was worked out by hand."""

from collections.abc import Callable
from pathlib import Path

import pytest
from study_folder import FULL, one_table, scaled, tables, texts, write_scores

from training.report.blocks import Text
from training.report.compare import families, smallest_p
from training.report.statistics import statistics
from training.report.study import read_study


def test_fold_wise_and_case_wise(folder: Path) -> None:
    table = one_table(statistics(read_study(folder)), "CT: A-QCF-Net against the others; 12 comp")
    assert table.caption.endswith("threshold 0.0042")  # 0.05 / 12
    rows = texts(table)
    assert rows[0] == ["against nnU-Net"]
    # All of 3 folds and 4 cases lower by 0.05: one of 2**3 and of 2**4 patterns, two-sided.
    assert rows[1] == ["Liver Dice", "+5.0", "3", "0.250", "4", "0.125"]
    assert rows[2] == ["Tumour Dice", "-10.0", "2", "0.500", "2", "0.500"]
    assert rows[3] == ["Liver HD95 (mm)", "+0.00", "3", "1.000", "4", "1.000"]


def test_it_says_what_few_folds_cannot_show(folder: Path) -> None:
    warning = next(
        b for b in statistics(read_study(folder)) if isinstance(b, Text) and b.kind == "warning"
    )
    assert (
        "With 3 folds the fold-wise test gives no p below 0.25: it cannot reach 0.05"
        in warning.text
    )
    assert [smallest_p(n) for n in (0, 5, 6)] == [1.0, 0.0625, 0.03125]


def test_ablations_are_a_family_of_their_own(folder: Path) -> None:
    study = read_study(folder)
    ct, mr = families(study, study.others("ablation", "option"))
    assert {c.variant.name for c in ct.comparisons} == {"no_gate", "no_quaternions"}
    assert (len(ct.comparisons), len(mr.comparisons)) == (12, 6)  # MR: no tumours
    assert len(tables(statistics(study))) == 4


def test_many_cases_reach_significance(make_plan: Callable[..., Path], tmp_path: Path) -> None:
    names = [f"ct/{n}" for n in range(12)]
    folder = make_plan(tmp_path, folds=[names])
    main = {c: {**FULL["ct/d"], "liver_dice": 0.9 + 0.001 * n} for n, c in enumerate(names)}
    other = {c: {**FULL["ct/d"], "liver_dice": 0.8 - 0.002 * n} for n, c in enumerate(names)}
    write_scores(folder / "full/fold_0/scores.csv", main, names)
    write_scores(folder / "dynunet/fold_0/scores.csv", other, names)
    rows = texts(one_table(statistics(read_study(folder)), "CT"))
    # p = 2 / 2**12, times 3 comparisons
    assert rows[1][2:] == ["1", "1.000", "12", "< 0.001*"]
    assert rows[2][-1] == "1.000"


@pytest.mark.parametrize("variant", ["full", "dynunet"])
def test_nothing_to_compare(make_plan: Callable[..., Path], tmp_path: Path, variant: str) -> None:
    folder = make_plan(tmp_path)
    write_scores(folder / variant / "fold_0/scores.csv", scaled(1), ["ct/a"])
    blocks = statistics(read_study(folder))
    assert not tables(blocks)
    assert "No other variant shares a scored fold" in blocks[1].text  # type: ignore[union-attr]
