"""The reader study (sections 4.1.2 and 4.6): a sample of cases to rate, and table 8 of the ratings.

A sheet is a CSV file with a row per case and reader: ``case``, ``reader``, ``score`` (whole, 1 to
10), ``acceptable`` (0 or 1) and, where wanted, ``modality``; other columns are ignored.
"""

import csv
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from model.errors import InputError

from .stats import cohen_kappa, icc, summary

COLUMNS = ("case", "reader", "score", "acceptable")
LIKERT = range(1, 11)
_NONE = "–"


@dataclass(frozen=True, eq=False)
class Ratings:
    """A complete sheet. ``scores`` and ``acceptable``: ``(cases, readers)`` integers.
    ``modalities``: one a case; empty where the sheet names none."""

    cases: tuple[str, ...]
    readers: tuple[str, ...]
    scores: NDArray[np.int64]
    acceptable: NDArray[np.int64]
    modalities: tuple[str, ...] = ()


@dataclass(frozen=True)
class ReaderTable:
    """Table 8: ``header`` and ``rows`` of text, and ``notes`` on what they hold."""

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()

    def markdown(self) -> str:
        lines = [f"**{self.title}**", "", _line(self.header), _line(["---"] * len(self.header))]
        return "\n".join([*lines, *map(_line, self.rows), *(f"\n{note}" for note in self.notes)])

    def rich(self) -> Table:
        table = Table(*self.header, title=self.title, caption="\n".join(self.notes))
        for row in self.rows:
            table.add_row(*row)
        return table


def report_readers(sheet: Path, to: Path | None = None) -> list[ReaderTable]:
    """Table 8 of a filled sheet, printed, and written as Markdown where ``to`` is given.

    Raises what ``read_ratings`` raises.
    """
    ratings = read_ratings(sheet)
    tables = [table_8(ratings)]
    if ratings.modalities:
        tables.append(by_modality(ratings))
    for table in tables:
        Console().print(table.rich())
    if to is not None:
        to.parent.mkdir(parents=True, exist_ok=True)
        to.write_text("\n\n".join(t.markdown() for t in tables) + "\n", encoding="utf-8")
    return tables


def read_ratings(sheet: Path) -> Ratings:
    """Read a sheet that every reader has filled for every case.

    Raises ``InputError`` naming the row (the line of the file, the header is row 1) and the value:
    a column or a rating that is missing, a score that is not a whole number from 1 to 10, an
    acceptability other than 0 and 1, a case rated twice, or not at all, by one of the readers, and
    a case with two modalities.
    """
    rows = _read(sheet)
    cases, readers = (tuple(dict.fromkeys(row[name] for _, row in rows)) for name in COLUMNS[:2])
    scores = np.zeros((len(cases), len(readers)), np.int64)  # 0 is no score: not rated yet
    acceptable = np.zeros_like(scores)
    for number, row in rows:
        place = cases.index(row["case"]), readers.index(row["reader"])
        if scores[place]:
            raise InputError(f"row {number}: {row['reader']!r} rates {row['case']!r} again")
        scores[place] = _whole(number, row, "score", LIKERT)
        acceptable[place] = _whole(number, row, "acceptable", range(2))
    for case, reader in np.argwhere(scores == 0):
        raise InputError(f"{sheet.name}: {readers[reader]!r} has not rated {cases[case]!r}")
    return Ratings(cases, readers, scores, acceptable, _modalities(rows, cases))


def table_8(ratings: Ratings) -> ReaderTable:
    """Mean ± SD and share of acceptable cases per reader, ICC(A,1) of the scores, and Cohen's kappa
    of the acceptability (of every two readers). An agreement that is not defined is explained."""
    notes: list[str] = []
    quality = [summary(column).mean_sd(1) for column in ratings.scores.T]
    accepted = [_share(column) for column in ratings.acceptable.T]
    agreement = _agreement(lambda: str(icc(ratings.scores).single), "ICC", notes)
    kappa = _kappas(ratings, notes)
    return ReaderTable(
        f"Reader study, {len(ratings.cases)} cases",
        ("Metric", *ratings.readers, "ICC(A,1) (95 % CI)", "Cohen's kappa (95 % CI)"),
        (
            ("Segmentation quality, 1 to 10", *quality, agreement, _NONE),
            ("Clinically acceptable", *accepted, _NONE, kappa),
        ),
        tuple(notes),
    )


def by_modality(ratings: Ratings) -> ReaderTable:
    """The readers' means and shares for each modality by itself."""
    rows = []
    for modality in sorted(set(ratings.modalities)):
        chosen = np.array([m == modality for m in ratings.modalities])
        quality = [summary(column).mean_sd(1) for column in ratings.scores[chosen].T]
        accepted = [_share(column) for column in ratings.acceptable[chosen].T]
        rows.append((modality.upper(), str(int(chosen.sum())), *quality, *accepted))
    header = [f"{r}, {what}" for what in ("quality", "acceptable") for r in ratings.readers]
    return ReaderTable("By modality", ("Modality", "Cases", *header), tuple(rows))


def _read(sheet: Path) -> list[tuple[int, dict[str, str]]]:
    """The rows with their line numbers; every needed cell is there and not empty."""
    try:
        with sheet.open(newline="", encoding="utf-8-sig") as stream:
            reader = csv.DictReader(stream, restval="")
            rows = [(reader.line_num, row) for row in reader]
            names = reader.fieldnames or ()
    except OSError as error:
        raise InputError(f"{sheet}: {error.strerror}") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{sheet.name} is not a CSV file in UTF-8: {error}") from error
    missing = [name for name in COLUMNS if name not in names]
    if missing:
        raise InputError(f"{sheet.name}: no column {', '.join(missing)}; it has {', '.join(names)}")
    if not rows:
        raise InputError(f"{sheet.name} holds no ratings")
    for number, row in rows:
        for name in COLUMNS:
            if not row[name].strip():
                raise InputError(f"row {number}: {name} is empty")
    return [(number, {k: str(v).strip() for k, v in row.items()}) for number, row in rows]


def _whole(number: int, row: dict[str, str], name: str, allowed: range) -> int:
    value = row[name]
    if not value.isascii() or not value.isdigit() or int(value) not in allowed:
        raise InputError(
            f"row {number}: {name} {value!r} is not a whole number from {allowed[0]} to "
            f"{allowed[-1]}"
        )
    return int(value)


def _modalities(rows: list[tuple[int, dict[str, str]]], cases: tuple[str, ...]) -> tuple[str, ...]:
    known: dict[str, str] = {}
    for number, row in rows:
        modality = row.get("modality", "")
        if known.setdefault(row["case"], modality) != modality:
            raise InputError(
                f"row {number}: modality {modality!r} of {row['case']!r} was {known[row['case']]!r}"
            )
    return tuple(known[case] for case in cases) if all(known.values()) else ()


def _share(column: NDArray[np.int64]) -> str:
    return f"{100 * column.mean():.1f} % ({int(column.sum())}/{len(column)})"


def _kappas(ratings: Ratings, notes: list[str]) -> str:
    pairs = list(combinations(range(len(ratings.readers)), 2))
    found = []
    for one, two in pairs:
        first, second = ratings.acceptable[:, one].tolist(), ratings.acceptable[:, two].tolist()
        names = f"{ratings.readers[one]}, {ratings.readers[two]}"
        text = _agreement(
            lambda a=first, b=second: str(cohen_kappa(a, b).kappa),  # type: ignore[misc]
            f"kappa of {names}", notes,
        )  # fmt: skip
        found.append(text if len(pairs) == 1 else f"{names}: {text}")
    return "; ".join(found) or _NONE


def _agreement(figure: Callable[[], str], name: str, notes: list[str]) -> str:
    """The figure, or a dash and the reason why there is none."""
    try:
        return figure()
    except InputError as error:
        notes.append(f"{name}: {error.message}.")
        return _NONE


def _line(cells: Iterable[str] | Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
