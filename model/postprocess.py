"""Rules applied to a mask after argmax. Each that changed something says so in a sentence."""

from collections.abc import Callable
from typing import Final, TypeAlias

import cc3d
import numpy as np
from numpy.typing import NDArray

from .resample import bounding_box
from .spec import PostprocessRules
from .types import BACKGROUND, LIVER, TUMOUR, MaskArray

_CONNECTIVITY: Final = 26

Rule = Callable[[MaskArray, float], tuple[MaskArray, str | None]]

Shown: TypeAlias = Callable[[MaskArray], MaskArray]
"""What of a mask the acquired slices show, where the mask's slices are not those: no class higher
than in the mask, background where none shows it."""


def postprocess(
    mask: MaskArray, rules: PostprocessRules, voxel_ml: float, shown: Shown | None = None
) -> tuple[MaskArray, tuple[str, ...]]:
    """A new mask, and one sentence for every rule that changed it, in the order applied.

    Tumour apart from the liver goes first, so that it cannot pass for the largest component;
    ``min_liver_ml`` is judged by ``pipeline``. Last comes what ``shown`` leaves out.
    """
    result = mask.copy()
    box = bounding_box(mask != BACKGROUND, margin=1)
    if box is None:
        return result, ()
    said: list[str] = []
    for rule in _chosen(rules):
        result[box], sentence = rule(result[box], voxel_ml)
        if sentence is not None:
            said.append(sentence)
    if shown is not None:
        result[box], sentences = _only_shown(result[box], shown(result)[box], voxel_ml)
        said.extend(sentences)
    return result, tuple(said)


def _chosen(rules: PostprocessRules) -> list[Rule]:
    chosen: list[Rule] = []
    if rules.tumour_inside_liver:
        chosen.append(_tumour_inside_liver)
    if rules.largest_liver_component:
        chosen.append(_largest_liver_component)
    if rules.min_lesion_ml > 0:
        chosen.append(lambda mask, voxel_ml: _min_lesion(mask, voxel_ml, rules.min_lesion_ml))
    return chosen


def _tumour_inside_liver(mask: MaskArray, voxel_ml: float) -> tuple[MaskArray, str | None]:
    """A tumour component none of whose voxels touches liver becomes background."""
    labels, sizes = _components(mask == TUMOUR)
    if len(sizes) == 1:
        return mask, None
    apart = np.ones(len(sizes), bool)
    apart[labels[_dilated(mask == LIVER)]] = False
    apart[0] = False
    sentence = (
        f"Removed {_parts(apart)} labelled tumour that do not touch the liver "
        f"({_ml(sizes[apart], voxel_ml)})."
    )
    return _relabelled(mask, apart[labels], BACKGROUND), sentence if apart.any() else None


def _largest_liver_component(mask: MaskArray, voxel_ml: float) -> tuple[MaskArray, str | None]:
    """Of liver and tumour together only the largest component stays."""
    labels, sizes = _components(mask != BACKGROUND)
    if len(sizes) <= 2:
        return mask, None
    others = np.arange(len(sizes)) != sizes[1:].argmax() + 1
    others[0] = False
    sentence = (
        f"Kept the largest liver component and removed {_parts(others)} apart from it "
        f"({_ml(sizes[others], voxel_ml)})."
    )
    return _relabelled(mask, others[labels], BACKGROUND), sentence


def _min_lesion(mask: MaskArray, voxel_ml: float, least: float) -> tuple[MaskArray, str | None]:
    """A tumour component smaller than ``least`` ml becomes liver."""
    labels, sizes = _components(mask == TUMOUR)
    small = sizes * voxel_ml < least
    small[0] = False
    sentence = (
        f"Counted {_parts(small)} labelled tumour and smaller than {least:g} ml as liver "
        f"({_ml(sizes[small], voxel_ml)})."
    )
    return _relabelled(mask, small[labels], LIVER), sentence if small.any() else None


def _only_shown(
    mask: MaskArray, shown: MaskArray, voxel_ml: float
) -> tuple[MaskArray, tuple[str, ...]]:
    """A component of which no voxel is shown has no image to stand on: liver and tumour together
    become background, a tumour in a liver that is shown becomes liver."""
    apart, parts, removed = _hidden(mask != BACKGROUND, shown != BACKGROUND, voxel_ml)
    mask = _relabelled(mask, apart, BACKGROUND)
    inside, lesions, counted = _hidden(mask == TUMOUR, shown == TUMOUR, voxel_ml)
    said = {
        f"Removed {parts} that no acquired slice shows ({removed}).": apart.any(),
        f"Counted {lesions} labelled tumour that no acquired slice shows as liver ({counted}).":
            inside.any(),
    }  # fmt: skip
    return _relabelled(mask, inside, LIVER), tuple(text for text, true in said.items() if true)


def _hidden(
    mask: NDArray[np.bool_], shown: NDArray[np.bool_], voxel_ml: float
) -> tuple[NDArray[np.bool_], str, str]:
    """Where the components are that nothing is shown of, how many and how large."""
    labels, sizes = _components(mask)
    hidden = np.ones(len(sizes), bool)
    hidden[labels[shown]] = False
    hidden[0] = False
    return hidden[labels], _parts(hidden), _ml(sizes[hidden], voxel_ml)


def _components(mask: NDArray[np.bool_]) -> tuple[NDArray[np.integer], NDArray[np.int64]]:
    """26-connected component numbers and the voxel count of each, index 0 the rest."""
    labels = cc3d.connected_components(mask, connectivity=_CONNECTIVITY)
    sizes = cc3d.statistics(labels, no_slice_conversion=True)["voxel_counts"]
    return labels, sizes.astype(np.int64)


def _dilated(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The mask and its 26 neighbours: one step along each axis in turn."""
    grown = mask.copy()
    for axis in range(3):
        line, before = np.moveaxis(grown, axis, 0), np.moveaxis(grown, axis, 0).copy()
        line[1:] |= before[:-1]
        line[:-1] |= before[1:]
    return grown


def _relabelled(mask: MaskArray, where: NDArray[np.bool_], value: int) -> MaskArray:
    changed = mask.copy()
    changed[where] = value
    return changed


def _parts(chosen: NDArray[np.bool_]) -> str:
    count = int(np.count_nonzero(chosen))
    return "1 part" if count == 1 else f"{count} parts"


def _ml(sizes: NDArray[np.int64], voxel_ml: float) -> str:
    return f"{float(sizes.sum()) * voxel_ml:.2f} ml"
