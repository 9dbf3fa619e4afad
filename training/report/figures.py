"""Figures 4 to 6 and the box plots, drawn into the report's folder."""

import re
from collections.abc import Sequence
from pathlib import Path

from model.types import MODALITIES, Modality

from .blocks import Block, Figure, Gallery, Heading, Text
from .boxes import draw_boxes
from .curves import draw_folds
from .overlays import Overlays, draw_overlays
from .study import Study, Variant
from .wording import MODALITY_NAMES, counted, crossval, listed, missing

_BAND = "lines are means over the folds that have reached a step, bands from least to greatest"


def forget_figures(folder: Path) -> None:
    """Remove the pictures of an earlier report: one of them may not be allowed in this one."""
    for pattern in ("boxes.png", "curves*.png", "overlays_*.png"):
        for file in folder.glob(pattern):
            file.unlink()


def curve_figures(study: Study, folder: Path) -> list[Block]:
    """Figure 4 for the main variant, and small ones for the others."""
    head = Heading("Learning curves (figure 4)")
    file = "curves.png"
    if not draw_folds(study.runs_of(study.main), folder / file):
        sentence = f"No run of {study.main.title} has left a step yet. To train:"
        blocks: list[Block] = [head, *missing(sentence, crossval(study))]
    else:
        rules = study.plan.config.protocol
        where = "the test fold" if rules.validation == "fold" else "held-out training patients"
        caption = (
            f"Figure 4. {study.main.title}, {counted(len(study.plan.folds), 'fold')}: {_BAND}. "
            "(a) Dice and cross-entropy loss of each modality; the joint loss is their sum. "
            f"(b) Dice; validation on {where}."
        )
        blocks = [head, _figure(folder, file, caption)]
    small = _small_curves(study, folder)
    return [*blocks, Gallery(tuple(small))] if small else blocks


def box_figure(study: Study, folder: Path) -> list[Block]:
    """Dice of the cases by method."""
    file = "boxes.png"
    if not draw_boxes(study, study.methods, folder / file):
        return []
    caption = (
        "Dice of the cases of all folds: box from the first to the third quartile with the median, "
        "whiskers to 1.5 times the box, a dot for each case."
    )
    return [Heading("Dice of the cases", 3), _figure(folder, file, caption)]


def overlay_figures(study: Study, folder: Path, *, publishable: bool) -> list[Block]:
    """Figures 5 (CT) and 6 (MR)."""
    blocks: list[Block] = [Heading("Cases beside each other (figures 5 and 6)")]
    for number, modality in enumerate(MODALITIES, start=5):
        found = draw_overlays(study, modality, folder, publishable=publishable)
        blocks += _overlays(study, number, modality, folder, found)
    return blocks


def _overlays(
    study: Study, number: int, modality: Modality, folder: Path, found: Overlays
) -> list[Block]:
    name = f"Figure {number}. {MODALITY_NAMES[modality]}"
    notes = [Text(note) for note in found.notes]
    if found.file is None:
        sentence = f"{name}: there is nothing to show. Masks are kept when runs are scored:"
        return [*missing(sentence, crossval(study)), *notes]
    caption = (
        f"{name}, {listed(found.cases)}: the axial slice with the largest tumour of the reference, "
        "else the largest liver. Liver red, tumour blue. Below each, Dice of the whole case (%)."
    )
    return [_figure(folder, found.file, caption), *notes]


def _small_curves(study: Study, folder: Path) -> list[Figure]:
    figures = []
    for variant in study.others("main", "baseline", "ablation", "option"):
        file = f"curves_{_safe(variant, study.plan.variants)}.png"
        if draw_folds(study.runs_of(variant), folder / file, small=True):
            figures.append(_figure(folder, file, variant.title))
    return figures


def _safe(variant: Variant, variants: Sequence[Variant]) -> str:
    """A file name of its own, whatever the variant is called."""
    kept = re.sub(r"[^A-Za-z0-9_-]+", "_", variant.name)
    return kept if kept == variant.name else f"{kept}_{variants.index(variant)}"


def _figure(folder: Path, file: str, caption: str) -> Figure:
    return Figure(f"{folder.name}/{file}", caption, caption.partition(":")[0])
