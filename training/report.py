"""Rows on disk and pictures of a run."""

import csv
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.figure import Figure

from model.types import MODALITIES

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
    if len(kept) < len(rows):
        path.unlink()
        append_csv(path, kept)


def draw_curves(run: Path) -> Path:
    """``curves.png``: training loss and validation liver Dice over steps (figure 4)."""
    figure = Figure(figsize=(11, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    rows = read_csv(run / STEPS_CSV)
    steps = [int(row["step"]) for row in rows]
    for name in MODALITIES:
        left.plot(steps, _smooth([float(row[name]) for row in rows]), label=name)
    left.set(xlabel="step", ylabel="Dice + cross-entropy", title="training loss (smoothed)")
    curves: dict[str, list[tuple[int, float]]] = defaultdict(list)
    for row in read_csv(run / CASES_CSV):
        curves[row["case"]].append((int(row["step"]), float(row["liver_dice"])))
    for case, points in curves.items():
        right.plot(*zip(*points, strict=True), marker=".", label=case)
    right.set(xlabel="step", ylabel="Dice", ylim=(0, 1), title="held-out liver Dice")
    for axes in (left, right):
        if axes.lines:
            axes.legend(fontsize=7)
        axes.grid(alpha=0.3)
    path = run / CURVES
    figure.savefig(path, dpi=110)
    return path


def _smooth(values: list[float], keep: float = 0.8) -> list[float]:
    smoothed: list[float] = []
    for value in values:
        smoothed.append(keep * smoothed[-1] + (1 - keep) * value if smoothed else value)
    return smoothed
