"""Reading a study's folder, and its head."""

from collections.abc import Callable
from pathlib import Path

import pytest
from study_folder import FOLDS, FULL, one_table, texts, write_rows, write_scores

from model.errors import ConfigError, InputError
from training.report.blocks import Command, Facts
from training.report.head import cases_table, head, limits, runs_table
from training.report.study import read_study
from training.report.wording import without_places


def test_cases_outside_the_fold_do_not_count(
    make_plan: Callable[..., Path], tmp_path: Path
) -> None:
    folder = make_plan(tmp_path)
    write_scores(folder / "full/fold_1/scores.csv", FULL, [*FOLDS[1], "ct/a"])
    study = read_study(folder)
    assert [s.case for s in study.scores(study.main)] == list(FOLDS[1])


def test_a_missing_study_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="aqcf-train crossval"):
        read_study(tmp_path / "nothing")


@pytest.mark.parametrize("changes", [{"variants": []}, {"folds": "many"}, {"config": {}}])
def test_an_invalid_study_is_refused(
    make_plan: Callable[..., Path], tmp_path: Path, changes: dict[str, object]
) -> None:
    with pytest.raises(ConfigError, match=r"study\.json: "):
        read_study(make_plan(tmp_path, **changes))


@pytest.mark.parametrize(
    "row",
    [
        {"case": "ct/a", "modality": "ct", "liver_dice": "high"},
        {"case": "ct/a", "modality": "pet", "liver_dice": 0.5},
        {"case": "", "modality": "ct", "liver_dice": 0.5},
    ],
)
def test_a_row_that_cannot_be_read_is_named(
    make_plan: Callable[..., Path], tmp_path: Path, row: dict[str, object]
) -> None:
    folder = make_plan(tmp_path)
    write_rows(folder / "full/fold_0/scores.csv", [row])
    with pytest.raises(InputError, match=r"scores\.csv, row 1: "):
        read_study(folder)


@pytest.mark.parametrize("text", ["{", "[1]"])
def test_a_broken_record_is_named(
    make_plan: Callable[..., Path], tmp_path: Path, text: str
) -> None:
    folder = make_plan(tmp_path)
    (folder / "full/fold_0").mkdir(parents=True)
    (folder / "full/fold_0/run.json").write_text(text)
    with pytest.raises(InputError, match=r"run\.json: "):
        read_study(folder)


def test_numbers_that_are_not_finite_are_not_known(
    make_plan: Callable[..., Path], tmp_path: Path
) -> None:
    folder = make_plan(tmp_path)
    row = {"case": "ct/a", "modality": "ct", "liver_dice": 0.5, "liver_hd95_mm": "nan"}
    write_rows(folder / "full/fold_0/scores.csv", [row])
    assert read_study(folder).runs[0].scores[0].values == {"liver_dice": 0.5}


def test_the_head_says_with_what_it_was_made(folder: Path) -> None:
    blocks = head(read_study(folder))
    facts = dict(next(b for b in blocks if isinstance(b, Facts)).pairs)
    assert facts["Hours, all runs"] == "5.5 in 11 runs"
    assert (facts["Seeds"], facts["Threads"], facts["PyTorch"]) == ("7", "2", "2.13.0")
    assert Command("aqcf-train crossval …/tiny.yaml --study runs/tiny") in blocks
    assert Command("aqcf-train crossval CONFIG --study …/tiny") in blocks  # some are waiting
    rows = texts(one_table(blocks, "What was trained"))
    assert rows[0] == ["A-QCF-Net", "main", "12 345", "40", "3 of 3", "1.50"]
    assert rows[3] == ["Exchange dropout", "option", "–", "–", "0 of 3", "0.00"]
    folds = texts(one_table(blocks, "Test cases"))
    assert folds[0] == ["0", "2", "1", "1", "0"]
    assert folds[-1] == ["All", "4", "3", "2", "0"]


def test_limits_are_computed(folder: Path) -> None:
    said = "\n".join(limits(read_study(folder)))
    assert (
        "CT: 4 cases in 3 folds, 2 with a tumour in the reference: figures on CT tumours are anec"
        in said
    )
    assert "MR: 3 cases in 3 folds, none with a tumour in the reference: nothing is known" in said
    assert "3 of 3 folds" in said
    assert "cannot give p below 0.25, so it cannot reach 0.05" in said
    assert "One seed" in said
    assert "Labels of the test cases: full 7" in said


def test_runs_and_cases(folder: Path) -> None:
    study = read_study(folder)
    rows = texts(one_table([*runs_table(study)], "Runs"))
    # the last loss of fold 1: 2/4 + 0.1 and 3/4
    assert rows[1] == ["A-QCF-Net", "1", "7", "40", "12 345", "0.5", "0.600", "0.750", "2"]
    assert rows[9][2:] == ["–", "–", "–", "–", "–", "–", "0"]  # not begun
    cases = texts(one_table([*cases_table(study)], "Cases"))
    assert cases[0][:5] == ["ct/a", "0", "full", "90.0", "50.0"]
    assert cases[0][5:] == ["4.00", "10.00", "1.00", "2.00", "1500", "1490", "1.5"]
    assert cases[-1][:5] == ["mr/c", "2", "full", "84.0", "–"]


def test_commands_lose_their_places() -> None:
    command = "aqcf-train fit /home/me/a.yaml --run=/data/x/run runs/b and/or"
    assert without_places(command) == "aqcf-train fit …/a.yaml --run=…/run runs/b and/or"
