"""The reader study's sheet: what it takes, what it refuses, and the table it becomes."""

from pathlib import Path

import numpy as np
import pytest

from model.errors import InputError
from training.readers import by_modality, read_ratings, report_readers, table_8
from training.stats import cohen_kappa, icc

HEADER = "case,reader,score,acceptable,modality\n"
SCORES = {"R1": [9, 10, 8, 9, 7, 10], "R2": [9, 9, 8, 8, 6, 10]}
ACCEPTED = {"R1": [1, 1, 1, 1, 0, 1], "R2": [1, 1, 0, 1, 0, 1]}


@pytest.fixture
def sheet(tmp_path: Path) -> Path:
    """Six cases, three a modality; each reader has an order of their own."""
    rows = [
        f"case_{n},{reader},{SCORES[reader][n]},{ACCEPTED[reader][n]},{'ct' if n < 3 else 'mr'}\n"
        for reader, order in (("R1", range(6)), ("R2", (3, 1, 5, 0, 2, 4)))
        for n in order
    ]
    path = tmp_path / "ratings.csv"
    path.write_text(HEADER + "".join(rows), "utf-8")
    return path


def test_the_sheet_is_put_in_order(sheet: Path) -> None:
    ratings = read_ratings(sheet)
    assert ratings.readers == ("R1", "R2")
    np.testing.assert_array_equal(ratings.scores, np.transpose(list(SCORES.values())))
    np.testing.assert_array_equal(ratings.acceptable, np.transpose(list(ACCEPTED.values())))
    assert ratings.modalities == ("ct",) * 3 + ("mr",) * 3


def test_table_8_holds_what_the_paper_reports(sheet: Path) -> None:
    table = table_8(read_ratings(sheet))
    quality, accepted = table.rows
    assert quality[1:3] == ("8.8 ± 1.2", "8.3 ± 1.4")
    assert accepted[1:3] == ("83.3 % (5/6)", "66.7 % (4/6)")
    assert quality[3] == str(icc(np.transpose(list(SCORES.values()))).single)
    assert accepted[4] == str(cohen_kappa(*ACCEPTED.values()).kappa)
    assert accepted[4].startswith("0.57 (")
    assert quality[4] == accepted[3] == "–"
    assert table.notes == ()


def test_the_modalities_by_themselves(sheet: Path) -> None:
    table = by_modality(read_ratings(sheet))
    assert [row[:4] for row in table.rows] == [
        ("CT", "3", "9.0 ± 1.0", "8.7 ± 0.6"),
        ("MR", "3", "8.7 ± 1.5", "8.0 ± 2.0"),
    ]


def test_the_report_is_printed_and_written(
    sheet: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    to = tmp_path / "deep" / "table_8.md"
    report_readers(sheet, to)
    text = to.read_text("utf-8")
    assert "| Clinically acceptable | 83.3 % (5/6) | 66.7 % (4/6) | – | 0.57 (" in text
    assert "| MR | 3 |" in text
    assert "Reader study, 6 cases" in capsys.readouterr().out


def write(path: Path, *rows: str, header: str = HEADER) -> Path:
    path.write_text(header + "".join(f"{row}\n" for row in rows), "utf-8")
    return path


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (["a,R1,9,1,ct", "a,R2,11,1,ct"], "row 3: score '11'"),
        (["a,R1,0,1,ct"], "row 2: score '0'"),
        (["a,R1,8.5,1,ct"], "row 2: score '8.5'"),
        (["a,R1,²,1,ct"], "row 2: score '²'"),
        (["a,R1,9,yes,ct"], "row 2: acceptable 'yes' is not a whole number from 0 to 1"),
        (["a,R1,,1,ct"], "row 2: score is empty"),
        (["a,R1"], "row 2: score is empty"),
        (["a,R1,9,1,ct", "b,R1,9,1,ct", "a,R1,8,1,ct"], "row 4: 'R1' rates 'a' again"),
        (["a,R1,9,1,ct", "a,R2,9,1,ct", "b,R1,9,1,ct"], "'R2' has not rated 'b'"),
        (["a,R1,9,1,ct", "a,R2,9,1,mr"], "row 3: modality 'mr' of 'a' was 'ct'"),
        ([], "no ratings"),
    ],
)
def test_a_bad_row_is_named_with_its_value(rows: list[str], message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError) as refused:
        read_ratings(write(tmp_path / "bad.csv", *rows))
    assert message in refused.value.message


def test_a_file_that_is_no_sheet_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no column acceptable; it has case, reader, score"):
        read_ratings(write(tmp_path / "short.csv", "a,R1,9", header="case,reader,score\n"))
    with pytest.raises(InputError, match="No such file"):
        read_ratings(tmp_path / "missing.csv")
    (tmp_path / "latin.csv").write_bytes(b"case,reader,score,acceptable\nf\xe9,R1,9,1\n")
    with pytest.raises(InputError, match="UTF-8"):
        read_ratings(tmp_path / "latin.csv")


def test_readers_who_accept_everything_have_no_kappa(tmp_path: Path) -> None:
    rows = [f"{case},{reader},{score},1" for case, score in (("a", 9), ("b", 7)) for reader in "PQ"]
    path = write(tmp_path / "all.csv", *rows, header=HEADER.replace(",modality", ""))
    ratings = read_ratings(path)
    assert ratings.modalities == ()
    table = table_8(ratings)
    assert table.rows[1][-1] == "–"
    assert "both raters gave one and the same category" in table.notes[0]
    assert table.rows[0][-2] == "1.00 (1.00 to 1.00)"


def test_one_reader_has_no_agreement_and_three_have_three_kappas(tmp_path: Path) -> None:
    lines = [("a", 9, 1), ("b", 4, 0), ("c", 8, 1)]
    one = write(tmp_path / "one.csv", *(f"{c},P,{s},{a},ct" for c, s, a in lines))
    table = table_8(read_ratings(one))
    assert table.rows[0][2] == table.rows[1][3] == "–"
    assert "there are 3 and 1" in table.notes[0]
    three = write(
        tmp_path / "three.csv", *(f"{c},{r},{s},{a},ct" for c, s, a in lines for r in "PQR")
    )
    cell = table_8(read_ratings(three)).rows[1][-1]
    assert cell.count("1.00 (1.00 to 1.00)") == 3
    assert "P, Q: " in cell


def test_a_spreadsheets_byte_order_mark_does_no_harm(sheet: Path) -> None:
    sheet.write_bytes(b"\xef\xbb\xbf" + sheet.read_bytes())
    assert len(read_ratings(sheet).cases) == 6


def test_the_proportions_of_section_4_6_give_its_kappa_to_a_hundredth(tmp_path: Path) -> None:
    """37 and 36 of 40 accepted, all but one case alike: 0.84375; the paper prints 0.83."""
    pairs = [(1, 1)] * 36 + [(1, 0)] + [(0, 0)] * 3
    rows = [f"c{n},{r},9,{value},ct" for n, pair in enumerate(pairs)
            for r, value in zip("PQ", pair, strict=True)]  # fmt: skip
    accepted = table_8(read_ratings(write(tmp_path / "paper.csv", *rows))).rows[1]
    assert accepted[1:3] == ("92.5 % (37/40)", "90.0 % (36/40)")
    assert accepted[4].startswith("0.84 (")
