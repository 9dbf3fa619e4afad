"""Pictures of slices with the mask over them, as radiologists hang them: the patient's right at the
picture's left, anterior (axial) or superior (coronal, sagittal) on top, true to scale."""

from dataclasses import dataclass
from io import BytesIO
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage

from .resample import reorient
from .types import BACKGROUND, LIVER, TUMOUR, MaskArray, NativeArray, SpacingZYX
from .volume import Volume, spacing_mm

Window: TypeAlias = tuple[float, float]
Colour: TypeAlias = tuple[int, int, int]

CT_WINDOW: Window = (-110.0, 190.0)
COLOURS: dict[int, Colour] = {LIVER: (64, 200, 170), TUMOUR: (255, 96, 64)}
NAMES: dict[int, str] = {LIVER: "Liver", TUMOUR: "Tumour"}
_FILL = 0.28
_PANEL_PX = (320, 420)  # the largest width and height of a panel
_GAP = 8
_LEGEND_PX = 26
_INK: Colour = (225, 225, 225)
_PAPER: Colour = (16, 18, 22)


@dataclass(frozen=True, eq=False)
class _Hung:
    """Image and mask turned to LPS order: x grows to the left, y to posterior, z to superior."""

    array: NativeArray
    mask: MaskArray
    spacing: SpacingZYX
    window: Window


def render_slice(
    array: NativeArray,
    mask: NDArray[np.uint8] | None,
    window: Window,
    spacing: tuple[float, float],
    scale: float | None = None,
) -> bytes:
    """One slice ``(rows, columns)`` as PNG, the mask as contour and translucent fill.

    ``window``: the intensities of black and white. ``spacing``: mm between rows and columns.
    ``scale``: pixels per mm; by default the picture fits 320 x 420.
    """
    return _png(_panel(array, mask, window, spacing, scale))


def preview(volume: Volume, mask: MaskArray | None = None) -> bytes:
    """A contact sheet as PNG: three axial slices, a coronal and a sagittal one, and a legend.

    The slices go through the tumour where there is one, else through the liver, else the middle.
    """
    hung = _hang(volume, mask)
    z, y, x = _centre(hung.mask)
    scale = min(_fit(plane.shape, spacing) for plane, spacing in _planes(hung, z, y, x))
    axial = [_axial(hung, index, scale) for index in _levels(hung.mask, z)]
    rest = [_coronal(hung, y, scale), _sagittal(hung, x, scale)]
    return _png(_sheet([axial, rest], _values(hung.mask)))


def display_window(volume: Volume) -> Window:
    """A soft-tissue window for CT; the 1st to 99.5th percentile for MR."""
    if volume.modality == "ct":
        return CT_WINDOW
    lo, hi = np.percentile(np.asarray(volume.array[::2, ::4, ::4], np.float32), [1.0, 99.5])
    return float(lo), float(max(hi, lo + 1e-6))


def _hang(volume: Volume, mask: MaskArray | None) -> _Hung:
    array, affine = reorient(volume.array, volume.affine, "LPS")
    labels = np.zeros(volume.shape, np.uint8) if mask is None else mask
    turned = reorient(labels, volume.affine, "LPS")[0].astype(np.uint8, copy=False)
    return _Hung(array, turned, spacing_mm(affine), display_window(volume))


def _centre(mask: MaskArray) -> tuple[int, int, int]:
    """The fullest slice along each axis: of the tumour, else of the liver, else the middle."""
    for value in (TUMOUR, LIVER):
        found = mask == value
        if found.any():
            z, y, x = (int(found.sum(axis=axes).argmax()) for axes in ((1, 2), (0, 2), (0, 1)))
            return z, y, x
    z, y, x = (side // 2 for side in mask.shape)
    return z, y, x


def _levels(mask: MaskArray, middle: int) -> list[int]:
    """Three axial slices from above: ``middle``, and those that halve the mask each way of it."""
    counts = np.count_nonzero(mask, axis=(1, 2))
    weights = counts if counts.any() else np.ones(len(counts), np.int64)
    share = np.cumsum(weights) / weights.sum()
    at = float(share[middle])
    low, high = (int(np.searchsorted(share, part)) for part in (at / 2, (1 + at) / 2))
    return sorted((low, middle, high), reverse=True)


def _planes(hung: _Hung, z: int, y: int, x: int) -> list[tuple[NativeArray, tuple[float, float]]]:
    dz, dy, dx = hung.spacing
    return [
        (hung.array[z], (dy, dx)),
        (hung.array[:, y], (dz, dx)),
        (hung.array[:, :, x], (dz, dy)),
    ]


def _axial(hung: _Hung, z: int, scale: float) -> Image.Image:
    picture = _panel(hung.array[z], hung.mask[z], hung.window, hung.spacing[1:], scale)
    return _marked(picture, f"axial {z + 1}/{len(hung.array)}", "R")


def _coronal(hung: _Hung, y: int, scale: float) -> Image.Image:
    spacing = (hung.spacing[0], hung.spacing[2])
    plane, mask = hung.array[::-1, y], hung.mask[::-1, y]
    return _marked(_panel(plane, mask, hung.window, spacing, scale), "coronal", "R")


def _sagittal(hung: _Hung, x: int, scale: float) -> Image.Image:
    plane, mask = hung.array[::-1, :, x], hung.mask[::-1, :, x]
    return _marked(_panel(plane, mask, hung.window, hung.spacing[:2], scale), "sagittal", "A")


def _panel(
    array: NativeArray,
    mask: NDArray[np.uint8] | None,
    window: Window,
    spacing: tuple[float, float],
    scale: float | None,
) -> Image.Image:
    if scale is None:
        scale = _fit(array.shape, spacing)
    height, width = (
        max(1, round(n * step * scale)) for n, step in zip(array.shape, spacing, strict=True)
    )
    lo, hi = window
    grey = np.clip((np.asarray(array, np.float32) - lo) * (255.0 / (hi - lo)), 0, 255)
    picture = Image.fromarray(np.nan_to_num(grey).astype(np.uint8))
    colours = np.asarray(picture.resize((width, height), Image.Resampling.BILINEAR).convert("RGB"))
    if mask is None or not mask.any():
        return Image.fromarray(colours)
    labels = Image.fromarray(np.ascontiguousarray(mask))
    return _painted(colours, np.asarray(labels.resize((width, height), Image.Resampling.NEAREST)))


def _painted(colours: NDArray[np.uint8], labels: NDArray[np.uint8]) -> Image.Image:
    """Translucent fill and opaque contour of each class."""
    result = colours.astype(np.float32)
    for value, colour in COLOURS.items():
        inside = labels == value
        outline = inside & ~ndimage.binary_erosion(inside)
        result[inside] += _FILL * (np.array(colour, np.float32) - result[inside])
        result[outline] = colour
    return Image.fromarray(np.rint(result).astype(np.uint8))


def _fit(shape: tuple[int, ...], spacing: tuple[float, ...]) -> float:
    """Pixels per mm at which a plane fits into a panel."""
    rows, columns = (n * step for n, step in zip(shape, spacing, strict=True))
    return min(_PANEL_PX[0] / columns, _PANEL_PX[1] / rows)


def _marked(picture: Image.Image, caption: str, left: str) -> Image.Image:
    """The plane's name in the corner, and what lies at the picture's left edge."""
    draw = ImageDraw.Draw(picture)
    draw.text((4, 2), caption, fill=_INK, font=ImageFont.load_default())
    draw.text((4, picture.height // 2), left, fill=_INK, font=ImageFont.load_default())
    return picture


def _sheet(rows: list[list[Image.Image]], values: list[int]) -> Image.Image:
    width = max(sum(p.width + _GAP for p in row) + _GAP for row in rows)
    height = sum(max(p.height for p in row) + _GAP for row in rows) + _GAP + _LEGEND_PX
    sheet = Image.new("RGB", (width, height), _PAPER)
    y = _GAP
    for row in rows:
        x = _GAP
        for picture in row:
            sheet.paste(picture, (x, y))
            x += picture.width + _GAP
        y += max(p.height for p in row) + _GAP
    _legend(sheet, y, values)
    return sheet


def _legend(sheet: Image.Image, y: int, values: list[int]) -> None:
    draw, x = ImageDraw.Draw(sheet), _GAP
    for value in values:
        draw.rectangle((x, y + 4, x + 12, y + 16), fill=COLOURS[value])
        draw.text((x + 18, y + 3), NAMES[value], fill=_INK, font=ImageFont.load_default())
        x += 90
    note = "R: patient's right   A: anterior   research use only"
    draw.text((x, y + 3), note, fill=_INK, font=ImageFont.load_default())


def _values(mask: MaskArray) -> list[int]:
    return [int(value) for value in np.unique(mask) if value != BACKGROUND and value in COLOURS]


def _png(picture: Image.Image) -> bytes:
    stream = BytesIO()
    picture.save(stream, "PNG", compress_level=6)
    return stream.getvalue()
