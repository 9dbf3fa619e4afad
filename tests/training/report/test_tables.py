"""Tables 2 to 7 of a study whose numbers were worked out by hand."""

from collections.abc import Callable
from pathlib import Path

import pytest
from study_folder import EVIL, FOLDS, FULL, one_table, scaled, tables, texts, write_scores

from training.report.blocks import Command, Text
from training.report.study import Study, read_study
from training.report.tables import ablation_table, comparison_tables, external_tables, gate_table

WHOLE_CT = " (3 folds, 4 cases, of which 2 with a tumour in the reference)"
PART = " (known in folds 0, 1 only)"
NO_TUMOUR = "– (no case has a tumour in the reference)"


@pytest.fixture(scope="module")
def study(folder: Path) -> Study:
    return read_study(folder)


def test_table_2_is_of_folds_first_and_marks_the_best(study: Study) -> None:
    main, other, single = texts(one_table(comparison_tables(study), "Table 2. CT"))
    # liver: folds 0.85, 0.95, 0.90; tumour: 0.5, 0.7; HD95: 5, 7, 6; MSD: 1.25, 1.75, 1.5
    assert main == [
        f"A-QCF-Net{WHOLE_CT}", "90.0 ± 5.0*", f"60.0 ± 14.1{PART}", "6.00 ± 1.00",
        f"15.00 ± 7.07{PART}", "1.50 ± 0.25", f"3.00 ± 1.41{PART}",
    ]  # fmt: skip
    assert other[:3] == [f"nnU-Net{WHOLE_CT}", "85.0 ± 5.0", f"70.0 ± 14.1*{PART}"]
    # One fold of the three: higher figures, but not on the same cases, so never the best.
    assert single[0].startswith(f"{EVIL} (1 fold, 2 cases, of which 1 with")
    assert single[1] == "86.7 (a single value: no SD)"


def test_by_case_the_folds_do_not_count(study: Study) -> None:
    table = one_table(comparison_tables(study), "Table 2. CT of tiny <b>&, by case")
    # 4, 6, 7, 6: the squares of the deviations add up to 4.75
    assert texts(table)[0][3] == "5.75 ± 1.26"


def test_table_3_says_why_nothing_is_known(study: Study) -> None:
    main, other, _ = texts(one_table(comparison_tables(study), "Table 3. MR"))
    assert main[1:] == ["82.0 ± 2.0*", NO_TUMOUR, "9.00 ± 1.00", NO_TUMOUR, "2.25 ± 0.25",
                        NO_TUMOUR]  # fmt: skip
    assert other[1] == "77.0 ± 2.0"


def test_tables_4_and_5_are_over_the_models_of_the_folds(study: Study) -> None:
    blocks = external_tables(study)
    main, other, third = texts(one_table(blocks, "Table 4. CT of 3D-IRCADb"))
    assert main[:2] == [
        "A-QCF-Net (3 folds, 2 cases, of which 0 with a tumour in the reference)",
        "70.0 ± 10.0",  # folds 0.8, 0.7, 0.6
    ]
    assert main[3] == "6.00 ± 0.00"
    assert other[1] == "70.0 ± 10.0"  # as good: none is the best
    assert third[1] == "– (not scored yet)"
    (table,) = (t for t in tables(blocks) if t.caption == "Table 5. MR of LiverHccSeg")
    assert texts(table)[0][2:4] == ["40.0 ± 0.0", "– (not in the files of scores)"]


def test_several_external_sets_of_a_modality_get_letters(
    make_plan: Callable[..., Path], tmp_path: Path
) -> None:
    folder = make_plan(tmp_path, external={"one": "First", "two": "", "three": "Third"})
    for name in ("one", "two"):
        write_scores(folder / f"full/fold_0/external_{name}.csv", FULL, ["ct/a"])
    blocks = external_tables(read_study(folder))
    captions = [t.caption for t in tables(blocks) if "by case" not in t.caption]
    assert captions == ["Table 4a. CT of First", "Table 4b. CT of two"]
    said = [b.text for b in blocks if isinstance(b, Text)]
    assert "Table 5: no MR data set has been scored." in said
    assert "Not scored yet: Third. To score:" in said


def test_table_6_has_medians_and_quartiles(study: Study) -> None:
    table = one_table(gate_table(study), "Table 6")
    assert "3 pairs" in table.caption
    # 0.2, 0.4, 0.6: the quartiles lie half-way
    assert texts(table)[0] == ["Stage 1 (low-level features)", "0.40 [0.30, 0.50]",
                               "0.10 [0.10, 0.10]"]  # fmt: skip
    assert [row[2][:4] for row in texts(table)] == ["0.10", "0.20", "0.30", "0.40"]


def test_table_7_compares_on_the_same_folds(study: Study) -> None:
    rows = texts(one_table(ablation_table(study), "Table 7"))
    # fold 0: CT (0.85 + 0.5)/2, MR 0.80; fold 1: CT (0.95 + 0.7)/2, MR 0.82; fold 2: 0.90, 0.84
    assert rows[0][1:] == ["0.810 ± 0.067*", "—"]
    assert (
        "CT liver in 3 folds, CT tumour in 2 folds, MR liver in 3 folds, MR tumour in 0"
        in rows[0][0]
    )
    assert rows[1:] == [
        ["Fusion block ablations"],
        ["– No adaptive gate", "0.729 ± 0.060", "-10.0%"],
        ["Architecture backbone ablations"],
        ["– No quaternions (fold 1 only, 2 cases; there the full model has 0.823)", "0.411",
         "-50.0%"],
        ["Options"],
        ["– Exchange dropout", "– (not scored yet)", "–"],
    ]  # fmt: skip


def test_a_fold_that_is_scored_in_part_is_compared_in_that_part(
    make_plan: Callable[..., Path], tmp_path: Path
) -> None:
    folder = make_plan(tmp_path)
    write_scores(folder / "full/fold_0/scores.csv", FULL, FOLDS[0])
    write_scores(folder / "no_gate/fold_0/scores.csv", scaled(0.5), ["ct/b", "mr/a"])
    rows = texts(one_table(ablation_table(read_study(folder)), "Table 7"))
    # ct/b and mr/a have 0.8 each; ct/a, with 0.9, is left out of both sides
    assert rows[2] == [
        "– No adaptive gate (fold 0 only, 2 cases; there the full model has 0.800)", "0.400",
        "-50.0%",
    ]  # fmt: skip


def test_an_empty_study_says_how_it_is_filled(
    make_plan: Callable[..., Path], tmp_path: Path
) -> None:
    study = read_study(make_plan(tmp_path / "new", external={}))
    for make in (comparison_tables, external_tables, gate_table, ablation_table):
        blocks = make(study)
        assert not tables(blocks)
        assert any(isinstance(b, Text) and b.kind == "missing" for b in blocks)
        assert Command("aqcf-train crossval CONFIG --study …/new") in blocks
