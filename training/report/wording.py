"""Numbers and names as they are printed."""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from model.types import Modality

from .blocks import Block, Command, Text
from .study import Study
from .summary import Spread

NONE = "–"
MODALITY_NAMES: dict[Modality, str] = {"ct": "CT", "mr": "MR"}
METRIC_NAMES = {
    "liver_dice": "Liver Dice",
    "tumour_dice": "Tumour Dice",
    "liver_hd95_mm": "Liver HD95 (mm)",
    "tumour_hd95_mm": "Tumour HD95 (mm)",
    "liver_msd_mm": "Liver MSD (mm)",
    "tumour_msd_mm": "Tumour MSD (mm)",
}
_ABSOLUTE = re.compile(r"""(^|[\s='"])/[^\s'"]*/([^\s/'"]+)""")


def is_dice(metric: str) -> bool:
    """Higher is better, and printed in percent."""
    return metric.endswith("_dice")


def number(metric: str, value: float) -> str:
    """Dice in percent to a tenth, millimetres to a hundredth."""
    return f"{100 * value:.1f}" if is_dice(metric) else f"{value:.2f}"


def mean_sd(metric: str, spread: Spread) -> str:
    """``mean ± SD``; the mean alone where there is but one value."""
    mean = number(metric, spread.mean)
    return mean if spread.sd is None else f"{mean} ± {number(metric, spread.sd)}"


def p_value(p: float | None) -> str:
    if p is None:
        return NONE
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def counted(count: int, thing: str) -> str:
    """``1 case``, ``2 cases``."""
    return f"{count} {thing}" if count == 1 else f"{count} {thing}s"


def listed(items: Iterable[object]) -> str:
    return ", ".join(map(str, items))


def fold_list(folds: Sequence[int]) -> str:
    return f"fold{'' if len(folds) == 1 else 's'} {listed(folds)}"


def without_places(command: str) -> str:
    """A command whose absolute paths keep their last part only: a report may travel."""
    return _ABSOLUTE.sub(r"\1…/\2", command)


def missing(sentence: str, *commands: str) -> list[Block]:
    """What is not there yet, and what would fill it."""
    return [Text(sentence, "missing"), *(Command(command) for command in commands)]


def crossval(study: Study) -> str:
    """The command that goes on with the study where it stands."""
    return f"aqcf-train crossval CONFIG --study {_shown(study.folder)}"


def _shown(folder: Path) -> str:
    return f"…/{folder.name}" if folder.is_absolute() else str(folder)
