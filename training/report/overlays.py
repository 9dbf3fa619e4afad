"""Figures 5 and 6: cases beside each other as the reference, the main variant and the baselines
see them. Liver red, tumour blue, as in the paper."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from model.errors import AqcfError
from model.nifti import read_nifti
from model.render import display_window
from model.resample import reorient
from model.types import LIVER, TUMOUR, MaskArray, Modality
from model.volume import Volume, spacing_mm

from ..card import may_be_shown
from ..data import Case, list_cases, read_case
from ..evaluate import mask_name
from .boxes import plain_label
from .study import Score, Study, Variant
from .wording import without_places

MASKS = "masks"
ROWS = 8  # cases of one figure
_MARGIN_MM = 20.0
_RED, _BLUE = (0.90, 0.10, 0.10), (0.15, 0.35, 1.00)
_COLOURS = {LIVER: _RED, TUMOUR: _BLUE}
_PANEL_INCH = 2.1


@dataclass(frozen=True)
class Overlays:
    """What became of a figure. ``file`` is None when nothing could be drawn; ``notes`` say why, and
    which cases were left out."""

    file: str | None
    cases: tuple[str, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Slice:
    """One axial slice, ``(y, x)`` as radiologists hang it; ``masks`` in the order of the columns,
    None where a method has none. ``spacing``: mm between rows and columns."""

    image: NDArray[np.generic]
    masks: tuple[MaskArray | None, ...]
    spacing: tuple[float, float]
    window: tuple[float, float]


def draw_overlays(study: Study, modality: Modality, folder: Path, *, publishable: bool) -> Overlays:
    """Figure 5 (CT) or 6 (MR) into ``folder``, from the masks that the runs keep.

    The axial slice with the largest reference tumour, else the largest liver, cropped to what any
    of the columns marks and 20 mm around it. ``publishable``: only cases whose licence lets a
    picture of them be shown.
    """
    try:
        cases = {case.name: case for case in list_cases(study.plan.config.data)}
    except AqcfError as error:
        return Overlays(None, (), (f"The images cannot be read: {_first_line(error)}.",))
    scores = [s for s in study.scores(study.main, modality) if s.case in cases]
    masked = [s for s in scores if mask_file(study, study.main, cases[s.case], s.fold).is_file()]
    shown = [s for s in masked if not publishable or may_be_shown(cases[s.case])]
    notes = _left_out(scores, masked, shown)
    chosen = choose(shown)
    rows, problems = _slices(study, [(cases[s.case], s) for s in chosen])
    if not rows:
        return Overlays(None, (), (*notes, *problems))
    name = f"overlays_{modality}.png"
    _draw(study, rows, folder / name)
    return Overlays(name, tuple(s.case for s, _ in rows), (*notes, *problems))


def choose(scores: Sequence[Score]) -> list[Score]:
    """At most ``ROWS``: spread evenly from the worst Dice to the best; cases with a tumour first.

    No favourable selection: the ends of the range are always among them.
    """
    tumour = [s for s in scores if "tumour_dice" in s.values]
    liver = [s for s in scores if "tumour_dice" not in s.values]
    chosen = _spread(sorted(tumour, key=lambda s: s.values["tumour_dice"]), ROWS)
    rest = sorted(liver, key=lambda s: s.values.get("liver_dice", 0.0))
    return [*chosen, *_spread(rest, ROWS - len(chosen))]


def mask_file(study: Study, variant: Variant, case: Case, fold: int) -> Path:
    """Where a run keeps the mask of a case of its fold."""
    return study.folder / variant.name / f"fold_{fold}" / MASKS / mask_name(case)


def take_slice(volume: Volume, reference: MaskArray, masks: Sequence[MaskArray | None]) -> Slice:
    """The slice that shows most of the reference, of ``masks`` on the volume's grid."""
    image, affine = reorient(volume.array, volume.affine, "LPS")
    turned = [
        None if mask is None else reorient(mask, volume.affine, "LPS")[0].astype(np.uint8)
        for mask in (reference, *masks)
    ]
    z = fullest(turned[0] if turned[0] is not None else reference)
    planes = [None if mask is None else mask[z] for mask in turned]
    _, dy, dx = spacing_mm(affine)
    box = _box([plane for plane in planes if plane is not None], (dy, dx))
    return Slice(
        image[z][box],
        tuple(None if plane is None else plane[box] for plane in planes),
        (dy, dx),
        display_window(volume),
    )


def fullest(reference: MaskArray) -> int:
    """The slice ``z`` with most tumour, else most liver, else the middle."""
    for marked in (reference == TUMOUR, reference > 0):
        if marked.any():
            return int(marked.sum(axis=(1, 2)).argmax())
    return len(reference) // 2


def painted(
    plane: NDArray[np.generic], mask: MaskArray | None, window: tuple[float, float]
) -> NDArray[np.float64]:
    """``(y, x, 3)`` in 0 to 1: the image in grey with a translucent fill of each class."""
    low, high = window
    grey = np.clip((np.asarray(plane, np.float64) - low) / (high - low), 0, 1)
    colours = np.repeat(np.nan_to_num(grey)[..., None], 3, axis=2)
    if mask is not None:
        for value, colour in _COLOURS.items():
            colours[mask == value] = 0.6 * colours[mask == value] + 0.4 * np.array(colour)
    return colours


def _left_out(
    scores: Sequence[Score], masked: Sequence[Score], shown: Sequence[Score]
) -> tuple[str, ...]:
    notes = []
    without = [s.case for s in scores if s not in masked]
    if without:
        notes.append(f"No mask was kept of {', '.join(sorted(without))}.")
    hidden = len(masked) - len(shown)
    if hidden:
        notes.append(
            f"{hidden} of {len(masked)} cases are left out: their licence allows no picture."
        )
    if len(shown) > ROWS:
        notes.append(
            f"{ROWS} of {len(shown)} cases, spread evenly from the worst Dice to the best."
        )
    return tuple(notes)


def _spread(ranked: Sequence[Score], count: int) -> list[Score]:
    if len(ranked) <= count:
        return list(ranked)
    places = np.linspace(0, len(ranked) - 1, count).round().astype(int)
    return [ranked[place] for place in places]


def _slices(
    study: Study, chosen: Sequence[tuple[Case, Score]]
) -> tuple[list[tuple[Score, Slice]], list[str]]:
    rows, problems = [], []
    for case, score in chosen:
        try:
            volume, reference = read_case(case)
            masks = [_mask(study, v, case, score.fold, volume) for v in study.methods]
        except AqcfError as error:
            problems.append(f"{case.name} cannot be drawn: {_first_line(error)}.")
        else:
            rows.append((score, take_slice(volume, reference, masks)))
    return rows, problems


def _mask(
    study: Study, variant: Variant, case: Case, fold: int, volume: Volume
) -> MaskArray | None:
    """None where the variant has none, or one of another shape."""
    file = mask_file(study, variant, case, fold)
    if not file.is_file():
        return None
    mask = read_nifti(file, volume.modality).array
    return mask.astype(np.uint8) if mask.shape == volume.shape else None


def _box(planes: Sequence[MaskArray], spacing: tuple[float, float]) -> tuple[slice, slice]:
    marked = np.any([plane > 0 for plane in planes], axis=0)
    if not marked.any():
        return slice(None), slice(None)
    found = []
    for axis, step in enumerate(spacing):
        places = np.flatnonzero(marked.any(axis=1 - axis))
        margin = round(_MARGIN_MM / step)
        found.append(slice(max(0, int(places[0]) - margin), int(places[-1]) + margin + 1))
    return found[0], found[1]


def _draw(study: Study, rows: Sequence[tuple[Score, Slice]], path: Path) -> None:
    titles = ["Image", "Ground truth", *(v.title for v in study.methods)]
    heights = [_height(piece) for _, piece in rows]
    size = (_PANEL_INCH * len(titles), sum(heights) + 0.25 * len(rows) + 0.4)
    figure = Figure(figsize=size, layout="constrained", facecolor="white")
    grid = figure.subplots(len(rows), len(titles), squeeze=False, height_ratios=heights)
    for line, (score, piece) in zip(grid, rows, strict=True):
        _panel(line[0], piece, None, "")
        captions = ["", *(_dice_of(study, v, score) for v in study.methods)]
        for axes, mask, caption in zip(line[1:], piece.masks, captions, strict=True):
            _panel(axes, piece, mask, caption, missing=mask is None)
        line[0].set_ylabel(plain_label(score.case), fontsize=8)
    for axes, title in zip(grid[0], titles, strict=True):
        axes.set_title(plain_label(title, 24), fontsize=9)
    figure.savefig(path, dpi=100)


def _height(piece: Slice) -> float:
    """In inches, at the width of a panel."""
    (rows, columns), (dy, dx) = piece.image.shape, piece.spacing
    return float(_PANEL_INCH * rows * dy / (columns * dx))


def _panel(
    axes: Axes, piece: Slice, mask: MaskArray | None, caption: str, *, missing: bool = False
) -> None:
    dy, dx = piece.spacing
    axes.set(xticks=[], yticks=[])
    axes.set_xlabel("no mask" if missing else caption, fontsize=7)
    axes.imshow(painted(piece.image, mask, piece.window), aspect=dy / dx, interpolation="nearest")
    for value, colour in _COLOURS.items():
        if mask is not None and (mask == value).any() and not (mask == value).all():
            axes.contour(mask == value, levels=[0.5], colors=[colour], linewidths=0.8)


def _dice_of(study: Study, variant: Variant, score: Score) -> str:
    """Under the panel: the Dice of the whole case."""
    found = (s for s in study.scores(variant) if (s.case, s.fold) == (score.case, score.fold))
    values = next((s.values for s in found), {})
    parts = (("liver", "liver_dice"), ("tumour", "tumour_dice"))
    return ", ".join(f"{name} {100 * values[key]:.1f}" for name, key in parts if key in values)


def _first_line(error: AqcfError) -> str:
    return without_places(error.message.splitlines()[0].rstrip("."))
