"""Learning curves (figure 4)."""

from collections import defaultdict
from pathlib import Path

from matplotlib.figure import Figure

from model.types import MODALITIES

from ..records import CASES_CSV, CURVES, STEPS_CSV, read_csv


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
