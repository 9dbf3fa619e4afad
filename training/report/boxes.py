"""Box plots of the Dice of the cases, by method."""

from collections.abc import Sequence
from pathlib import Path
from textwrap import fill

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from model.types import MODALITIES, Modality

from .study import Study, Variant
from .summary import DICE
from .wording import METRIC_NAMES, MODALITY_NAMES


def draw_boxes(study: Study, variants: Sequence[Variant], path: Path) -> bool:
    """Liver and tumour, CT and MR, a box and its cases for each of ``variants``; whether there is
    anything to draw."""
    known = [
        (m, metric) for m in MODALITIES for metric in DICE if _known(study, variants, m, metric)
    ]
    if not known:
        return False
    height = 0.9 + 0.34 * len(variants)
    figure = Figure(figsize=(11, height * ((len(known) + 1) // 2)), layout="constrained")
    grid = figure.subplots((len(known) + 1) // 2, min(2, len(known)), squeeze=False).ravel()
    for axes, (modality, metric) in zip(grid, known, strict=False):
        _boxes(axes, study, variants, modality, metric)
    for axes in grid[len(known) :]:
        axes.set_axis_off()
    figure.savefig(path, dpi=110)
    return True


def _known(study: Study, variants: Sequence[Variant], modality: Modality, metric: str) -> bool:
    return any(_values(study, variant, modality, metric) for variant in variants)


def _values(study: Study, variant: Variant, modality: Modality, metric: str) -> list[float]:
    scores = study.scores(variant, modality)
    return [score.values[metric] for score in scores if metric in score.values]


def _boxes(
    axes: Axes, study: Study, variants: Sequence[Variant], modality: Modality, metric: str
) -> None:
    values = [_values(study, variant, modality, metric) for variant in variants]
    labels = [plain_label(variant.title, 30) for variant in variants]
    axes.boxplot(values, orientation="horizontal", tick_labels=labels, showfliers=False, widths=0.6)
    for place, found in enumerate(values, start=1):
        axes.plot(found, [place] * len(found), "o", color="tab:blue", alpha=0.5, markersize=4)
    axes.invert_yaxis()
    axes.set(xlim=(-0.02, 1.02), title=f"{MODALITY_NAMES[modality]}: {METRIC_NAMES[metric]}")
    axes.tick_params(labelsize=8)
    axes.grid(axis="x", alpha=0.3)


def plain_label(text: str, width: int = 0) -> str:
    """Text that matplotlib takes as it is, and not as mathematics; ``width`` letters to a line."""
    return (fill(text, width) if width else text).replace("$", r"\$")
