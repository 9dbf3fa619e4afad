"""Rows of a run on disk, and the names of its files."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

STEPS_CSV, CASES_CSV, CURVES = "steps.csv", "validation.csv", "curves.png"


def append_csv(path: Path, rows: Sequence[Mapping[str, object]]) -> None:
    """Append rows, with a header when the file is new."""
    if not rows:
        return
    new = not path.exists()
    with path.open("a", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        if new:
            writer.writeheader()
        writer.writerows(rows)


def read_csv(path: Path) -> list[dict[str, str]]:
    """The rows of a CSV file; none when it does not exist."""
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def forget_after(path: Path, step: int) -> None:
    """Drop the rows of later steps: a run that goes on from ``step`` writes them again."""
    rows = read_csv(path)
    kept = [row for row in rows if int(row["step"]) <= step]
    if len(kept) == len(rows):
        return
    partial = path.with_suffix(".partial")
    partial.unlink(missing_ok=True)
    append_csv(partial, kept)
    if kept:
        partial.replace(path)
    else:
        path.unlink()
