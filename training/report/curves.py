"""Learning curves (figure 4): of one run, and over the folds of a variant."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import TypeAlias

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from model.types import MODALITIES

from ..records import CASES_CSV, CURVES, STEPS_CSV, read_csv
from .study import Run
from .summary import DICE
from .wording import METRIC_NAMES, MODALITY_NAMES

Points: TypeAlias = dict[int, float]  # step -> value
_KEEP = 0.96  # of the running mean, each step
_LOSS = "Dice + cross-entropy"
_STYLES = {"liver_dice": "-", "tumour_dice": ":"}
_COLOURS = {"ct": "tab:blue", "mr": "tab:orange"}


@dataclass(frozen=True)
class Band:
    """At each step the mean, least and greatest of the folds that have reached it."""

    steps: tuple[int, ...]
    mean: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    folds: int


def draw_curves(run: Path) -> Path:
    """``curves.png`` of a run: training loss, and Dice of the held-out cases over steps; the soft
    Dice of the training patches too, where it was recorded."""
    figure, left, right = _axes(11, 4)
    rows = read_csv(run / STEPS_CSV)
    for name in MODALITIES:
        left.plot(*_lists(_smooth(_column(rows, name))), label=name)
        trained = _column(rows, f"dice_{name}")
        if trained:
            label = f"{name}, training patches (soft)"
            right.plot(*_lists(_smooth(trained)), "--", color="grey", alpha=0.7, label=label)
    left.set(xlabel="step", ylabel=_LOSS, title="training loss (smoothed)")
    curves: dict[str, Points] = defaultdict(dict)
    for row in read_csv(run / CASES_CSV):
        curves[row["case"]][int(row["step"])] = float(row["liver_dice"])
    for case, points in curves.items():
        right.plot(*_lists(points), marker=".", label=case)
    right.set(xlabel="step", ylabel="Dice", ylim=(0, 1), title="held-out liver Dice")
    return _finished(figure, run / CURVES)


def draw_folds(runs: Sequence[Run], path: Path, *, small: bool = False) -> bool:
    """Figure 4 to ``path``: mean and range over ``runs`` of loss and Dice; whether there is any.

    ``small``: for a gallery.
    """
    losses = {m: band([_smooth(p) for p in _of_each(runs, STEPS_CSV, m)]) for m in MODALITIES}
    if not any(b.steps for b in losses.values()):
        return False
    figure, left, right = _axes(*((7.2, 2.9) if small else (11, 4.2)))
    for modality, loss in losses.items():
        _draw(left, loss, MODALITY_NAMES[modality], _COLOURS[modality])
    left.set(xlabel="step", ylabel=_LOSS, title="(a) training loss (smoothed)")
    for modality in MODALITIES:
        name, colour = MODALITY_NAMES[modality], _COLOURS[modality]
        trained = band([_smooth(p) for p in _of_each(runs, STEPS_CSV, f"dice_{modality}")])
        _draw(right, trained, f"{name} training patches (soft)", colour, "--", shade=False)
        for metric in DICE:
            held_out = band([validation_points(run, modality, metric) for run in runs])
            label = f"{name} validation {METRIC_NAMES[metric].split()[0].lower()}"
            _draw(right, held_out, label, colour, _STYLES[metric], marker=".")
    right.set(xlabel="step", ylabel="Dice", ylim=(0, 1), title="(b) Dice")
    _finished(figure, path)
    return True


def band(curves: Sequence[Mapping[int, float]]) -> Band:
    """Over curves of different lengths."""
    found = [curve for curve in curves if curve]
    steps = sorted({step for curve in found for step in curve})
    at = [[curve[step] for curve in found if step in curve] for step in steps]
    return Band(
        tuple(steps), tuple(map(fmean, at)), tuple(map(min, at)), tuple(map(max, at)), len(found)
    )


def validation_points(run: Run, modality: str, metric: str) -> Points:
    """The mean over the validation cases of a modality that know ``metric``, at each step."""
    found: dict[int, list[float]] = defaultdict(list)
    for row in read_csv(run.folder / CASES_CSV):
        if row.get("modality") == modality and row.get(metric):
            found[int(row["step"])].append(float(row[metric]))
    return {step: fmean(values) for step, values in found.items()}


def _of_each(runs: Sequence[Run], file: str, column: str) -> list[Points]:
    return [_column(read_csv(run.folder / file), column) for run in runs]


def _column(rows: Sequence[Mapping[str, str]], name: str) -> Points:
    """The rows that have a value there."""
    return {int(row["step"]): float(row[name]) for row in rows if row.get(name)}


def _smooth(points: Points) -> Points:
    smoothed: Points = {}
    before, last = 0, 0.0
    for step, value in points.items():
        keep = _KEEP ** (step - before) if smoothed else 0.0
        before, last = step, keep * last + (1 - keep) * value
        smoothed[step] = last
    return smoothed


def _lists(points: Points) -> tuple[list[int], list[float]]:
    return list(points), list(points.values())


def _axes(width: float, height: float) -> tuple[Figure, Axes, Axes]:
    figure = Figure(figsize=(width, height), layout="constrained")
    left, right = figure.subplots(1, 2)
    return figure, left, right


def _draw(
    axes: Axes,
    what: Band,
    label: str,
    colour: str,
    style: str = "-",
    *,
    marker: str = "",
    shade: bool = True,
) -> None:
    if not what.steps:
        return
    axes.plot(what.steps, what.mean, style, color=colour, marker=marker, label=label)
    if shade and what.folds > 1:
        axes.fill_between(what.steps, what.low, what.high, color=colour, alpha=0.15, linewidth=0)


def _finished(figure: Figure, path: Path) -> Path:
    for axes in figure.axes:
        if axes.lines:
            axes.legend(fontsize=7)
        axes.grid(alpha=0.3)
    figure.savefig(path, dpi=110)
    return path
