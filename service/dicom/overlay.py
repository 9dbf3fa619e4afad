"""Drawing: a slice as a grey picture with outlines and words on it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage

from model.spec import Label
from model.types import BACKGROUND, NativeArray

from .codes import as_rgb

Colour: TypeAlias = tuple[int, int, int]
Font: TypeAlias = ImageFont.FreeTypeFont | ImageFont.ImageFont

INK: Final[Colour] = (235, 235, 235)
WARNING: Final[Colour] = (255, 196, 0)
PAPER: Final[Colour] = (0, 0, 0)
NOT_EVALUABLE: Final = (
    "NOT EVALUABLE",
    "Too little liver in the field of view.",
    "This is not a negative finding.",
)
WORDS_PER_LINE: Final = 36  # letters that fit across a picture, about
LARGE: Final = 1.5


@dataclass(frozen=True)
class Caption:
    """``left``, ``right``: which side of the patient lies at that edge. ``tumour``, ``evaluable``:
    of the whole mask, not of this slice."""

    title: str
    left: str
    right: str
    place: str
    tumour: bool
    evaluable: bool


@dataclass(frozen=True, eq=False)
class Picture:
    """``values`` and ``mask``: ``(rows, columns)``. ``window``: black, white. ``factor``: pixels
    per voxel. ``labels``: the organ, then what lies in it."""

    values: NativeArray
    mask: NDArray[np.uint8]
    window: tuple[float, float]
    factor: int
    labels: Sequence[Label]
    caption: Caption


def paint(picture: Picture) -> NDArray[np.uint8]:
    """RGB, ``(rows * factor, columns * factor, 3)``."""
    pixels = _grey(picture)
    _outline(pixels, picture)
    canvas = Image.fromarray(pixels)
    _write(canvas, picture)
    return np.asarray(canvas)


def _grey(picture: Picture) -> NDArray[np.uint8]:
    low, high = picture.window
    scaled = (np.asarray(picture.values, np.float32) - low) * (255.0 / (high - low))
    grey = Image.fromarray(np.clip(np.nan_to_num(scaled), 0, 255).round().astype(np.uint8))
    rows, columns = picture.values.shape
    if picture.factor > 1:
        size = columns * picture.factor, rows * picture.factor
        grey = grey.resize(size, Image.Resampling.BICUBIC)
    return np.array(grey.convert("RGB"))


def _outline(pixels: NDArray[np.uint8], picture: Picture) -> None:
    """Lines on the mask's own outermost pixels, the organ's with what lies in it."""
    mask = picture.mask.repeat(picture.factor, axis=0).repeat(picture.factor, axis=1)
    organ, *parts = picture.labels
    shapes = [(organ, mask != BACKGROUND), *((part, mask == part.value) for part in parts)]
    for label, inside in shapes:
        if inside.any():
            pixels[inside & ~ndimage.binary_erosion(inside)] = as_rgb(label)


def _write(canvas: Image.Image, picture: Picture) -> None:
    caption, (width, height) = picture.caption, canvas.size
    size = max(9, round(width / WORDS_PER_LINE))
    font = ImageFont.load_default(size)
    draw = ImageDraw.Draw(canvas)
    middle = width // 2
    _words(draw, (middle, size), caption.title, INK, _fitting(caption.title, size, width))
    _words(draw, (middle, height - size), caption.place, INK, font)
    _words(draw, (size, height // 2), caption.left, INK, font)
    _words(draw, (width - size, height // 2), caption.right, INK, font)
    if caption.evaluable:
        _legend(draw, (middle, round(2.4 * size)), picture, font)
    else:
        _refusal(draw, (middle, height // 2), size)


def _fitting(text: str, size: float, width: int) -> Font:
    """The font in this size, or in the largest that leaves no letter out."""
    length = ImageFont.load_default(size).getlength(text)
    return ImageFont.load_default(min(size, size * 0.95 * width / length))


def _legend(
    draw: ImageDraw.ImageDraw, centre: tuple[int, int], picture: Picture, font: Font
) -> None:
    organ, *parts = picture.labels
    found = " + ".join(part.name for part in parts)
    entries = [("Liver", as_rgb(organ))]
    entries.append(
        (found, as_rgb(parts[0])) if picture.caption.tumour else ("No tumour found", INK)
    )
    gap = draw.textlength("  ", font)
    widths = [draw.textlength(text, font) for text, _ in entries]
    x = centre[0] - (sum(widths) + gap * (len(entries) - 1)) / 2
    for (text, colour), width in zip(entries, widths, strict=True):
        _words(draw, (x + width / 2, centre[1]), text, colour, font)
        x += width + gap


def _refusal(draw: ImageDraw.ImageDraw, centre: tuple[int, int], size: int) -> None:
    step = round(LARGE * size * 1.5)
    for line, text in enumerate(NOT_EVALUABLE, start=-1):
        font = ImageFont.load_default(size * (LARGE if line == -1 else 1.0))
        _words(draw, (centre[0], centre[1] + line * step), text, WARNING, font)


def _words(
    draw: ImageDraw.ImageDraw, centre: tuple[float, float], text: str, colour: Colour, font: Font
) -> None:
    """Centred, with a dark rim: legible on bone and on air."""
    draw.text(centre, text, fill=colour, font=font, anchor="mm", stroke_width=1, stroke_fill=PAPER)
