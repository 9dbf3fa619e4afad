"""Pictures of figures 7 and 8, hung as radiologists hang them: the patient's right on the left,
anterior on top."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import nn

from model.explain import feature_maps
from model.measure import lesion_labels
from model.preprocess import Prepared
from model.render import Window, display_window
from model.resample import reorient, sub_affine
from model.types import TUMOUR, Affine, ImageArray, NativeArray, ShapeZYX
from model.volume import Volume, spacing_mm

_DPI = 110
_SIDE_IN = 3.2
_OUTLINE = "#40c8aa"
_HEAT = "inferno"
_OPAQUE = 0.75  # of the highest saliency

BoolArray = NDArray[np.bool_]


def saliency_overlay(
    path: Path, volume: Volume, mask: BoolArray, saliency: ImageArray, title: str
) -> None:
    """Figure 7: image, reference, saliency over the image, on up to three axial slices through the
    largest lesion. All arrays are native, ``(z, y, x)``; ``saliency`` in [0, 1]."""
    image, lesion = (_hung(a, volume.affine) for a in (volume.array, largest(mask)))
    truth, heat = (_hung(a, volume.affine) for a in (mask, saliency))
    aspect = _aspect(volume.affine)
    slices = _levels(lesion)
    figure, grid = _grid(title, len(slices), ("image", "reference", "saliency"))
    for row, z in zip(grid, slices, strict=True):
        for axes in row:
            _grey(axes, image[z], display_window(volume), aspect)
        _outline(row[1], truth[z])
        _glow(row[2], heat[z], aspect)
        row[0].set_ylabel(f"slice {z + 1}/{len(image)}", fontsize=8)
    figure.savefig(path, dpi=_DPI)


def feature_panel(
    path: Path, net: nn.Module, prepared: Prepared, mask: BoolArray, patch: ShapeZYX,
    names: Sequence[str], title: str,
) -> None:  # fmt: skip
    """Figure 8: image, reference and the mean absolute activation of each named layer, on the axial
    slice through the middle of the largest lesion, in the patch around it.

    ``mask``: on the grid of ``prepared``. Raises what ``feature_maps`` raises.
    """
    centre = _centre(largest(mask))
    box = _around(centre, prepared.shape, patch)
    array, affine = prepared.array[box], sub_affine(prepared.affine, box)
    maps: Mapping[str, NativeArray] = {
        "image": array, "reference": mask[box], **feature_maps(net, array, names)
    }  # fmt: skip
    z = _slice_of([c - part.start for c, part in zip(centre, box, strict=True)], array, affine)
    figure, (row,) = _grid(title, 1, list(maps))
    for axes, (name, values) in zip(row, maps.items(), strict=True):
        plane = _hung(values, affine)[z]
        if name in ("image", "reference"):
            _grey(axes, _hung(array, affine)[z], (0.0, 1.0), _aspect(affine))
        else:
            axes.imshow(plane, cmap="viridis", aspect=_aspect(affine))
        if name == "reference":
            _outline(axes, plane)
    figure.savefig(path, dpi=_DPI)


def largest(mask: BoolArray) -> BoolArray:
    """The largest 26-connected part of a mask; empty when it is."""
    part: BoolArray = lesion_labels(np.where(mask, TUMOUR, 0).astype(np.uint8)) == 1
    return part


def _hung(array: NativeArray, affine: Affine) -> NativeArray:
    """Turned to LPS order, so that rows run to posterior and columns to the patient's left."""
    return reorient(array, affine, "LPS")[0]


def _slice_of(index: Sequence[int], array: NativeArray, affine: Affine) -> int:
    """The axial slice, after ``_hung``, of the voxel ``index`` ``(z, y, x)``."""
    _, place = reorient(array, affine, "LPS")
    point = affine @ np.array([*reversed(index), 1.0])
    return round(float((np.linalg.inv(place) @ point)[2]))


def _levels(lesion: NativeArray) -> list[int]:
    """Through a quarter, the middle and three quarters of the lesion's voxels, from above."""
    counts = np.count_nonzero(lesion, axis=(1, 2)).cumsum()
    return sorted({int(np.searchsorted(counts, part * counts[-1])) for part in (0.25, 0.5, 0.75)})[
        ::-1
    ]


def _centre(lesion: BoolArray) -> ShapeZYX:
    """The lesion's voxel nearest to its centre of mass; without one the middle of the grid."""
    voxels = np.argwhere(lesion)
    if not len(voxels):
        z, y, x = (side // 2 for side in lesion.shape)
        return z, y, x
    z, y, x = voxels[((voxels - voxels.mean(axis=0)) ** 2).sum(axis=1).argmin()].tolist()
    return z, y, x


def _around(centre: ShapeZYX, shape: ShapeZYX, patch: ShapeZYX) -> tuple[slice, slice, slice]:
    """A patch with ``centre`` in its middle, shifted to lie in the grid."""
    starts = [min(max(c - p // 2, 0), n - p) for c, p, n in zip(centre, patch, shape, strict=True)]
    z, y, x = (slice(a, a + p) for a, p in zip(starts, patch, strict=True))
    return z, y, x


def _aspect(affine: Affine) -> float:
    """Height of a pixel over its width in the axial plane after ``_hung``."""
    _, place = reorient(np.zeros((1, 1, 1)), affine, "LPS")
    _, rows, columns = spacing_mm(place)
    return rows / columns


def _grid(title: str, rows: int, names: Sequence[str]) -> tuple[Figure, list[list[Axes]]]:
    size = (_SIDE_IN * len(names), _SIDE_IN * rows + 0.6)
    figure = Figure(figsize=size, layout="constrained")
    figure.suptitle(title, fontsize=9)
    grid = figure.subplots(rows, len(names), squeeze=False)
    for axes in grid.flat:
        axes.set(xticks=[], yticks=[])
    for axes, name in zip(grid[0], names, strict=True):
        axes.set_title(name, fontsize=8)
    return figure, [list(row) for row in grid]


def _grey(axes: Axes, plane: NativeArray, window: Window, aspect: float) -> None:
    axes.imshow(plane, cmap="gray", vmin=window[0], vmax=window[1], aspect=aspect)


def _outline(axes: Axes, plane: NativeArray) -> None:
    if plane.any():
        axes.contour(plane, levels=[0.5], colors=_OUTLINE, linewidths=1.0)


def _glow(axes: Axes, plane: NativeArray, aspect: float) -> None:
    """Colour where there is saliency, the more of it the less transparent."""
    heat = np.asarray(plane, np.float32)
    axes.imshow(heat, cmap=_HEAT, vmin=0, vmax=1, alpha=_OPAQUE * np.sqrt(heat), aspect=aspect)
