"""A phantom and the mask that came back, as pictures for the report."""

import base64
import io
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from .records import Trial

WINDOW: Final = (-60.0, 260.0)
LIVER, TUMOUR, WRONG, EXPECTED = (60, 170, 90), (230, 120, 40), (255, 0, 200), (255, 255, 255)
LETTERS: Final = (("R", "L"), ("A", "P"), ("F", "H"))  # towards smaller, greater LPS
MM_PIXELS: Final = 2.2  # pixels of a picture for a millimetre
FILL: Final = 0.45
RGB = NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class _Plane:
    """One cut: ``spacing`` between rows and columns in mm; ``down`` and ``right`` in LPS."""

    values: NDArray[np.int16]
    expected: NDArray[np.uint8]
    found: NDArray[np.uint8] | None
    near: NDArray[np.bool_]
    spacing: tuple[float, float]
    down: NDArray[np.float64]
    right: NDArray[np.float64]


def pictures(trial: Trial) -> tuple[str, ...]:
    """Two cuts as ``data:`` URIs: a slice as it was sent, and one across all slices. The phantom's
    own outline is white, what came back is filled, what differs is magenta."""
    return tuple(_encoded(_painted(plane)) for plane in (_slice(trial), _across(trial)))


def _slice(trial: Trial) -> _Plane:
    index, _ = _middle(trial)
    return _cut(trial, (index, slice(None), slice(None)), (1, 2))


def _across(trial: Trial) -> _Plane:
    _, row = _middle(trial)
    return _cut(trial, (slice(None), row, slice(None)), (0, 2))


def _middle(trial: Trial) -> tuple[int, int]:
    """A slice and a row through the tumour, else the liver, else the volume."""
    mask = trial.written.phantom.scene.mask
    for value in (2, 1):
        if (mask == value).any():
            z, y, _ = (int(np.median(axis)) for axis in np.nonzero(mask == value))
            return z, y
    return mask.shape[0] // 2, mask.shape[1] // 2


def _cut(trial: Trial, where: tuple[int | slice, ...], axes: tuple[int, int]) -> _Plane:
    phantom = trial.written.phantom
    stack, scene = phantom.stack, phantom.scene
    row, column = np.array(stack.orientation[:3]), np.array(stack.orientation[3:])
    directions = (np.cross(row, column), column, row)
    return _Plane(
        values=scene.values[where],
        expected=scene.mask[where],
        found=None if trial.returned is None else trial.returned[where],
        near=scene.edge[where] < phantom.edge_mm,
        spacing=(stack.spacing_mm[axes[0]], stack.spacing_mm[axes[1]]),
        down=directions[axes[0]],
        right=directions[axes[1]],
    )


def _painted(plane: _Plane) -> Image.Image:
    low, high = WINDOW
    grey = np.clip((plane.values - low) / (high - low), 0, 1) * 255
    colours = np.repeat(grey[..., None], 3, axis=2)
    if plane.found is not None:
        for value, colour in ((1, LIVER), (2, TUMOUR)):
            _fill(colours, plane.found == value, colour)
        _fill(colours, (plane.found != plane.expected) & ~plane.near, WRONG, 1.0)
    image = _scaled(colours.astype(np.uint8), plane.spacing)
    _outline(image, plane.expected, plane.spacing)
    _letters(image, plane)
    return image


def _fill(
    colours: NDArray[np.float64],
    where: NDArray[np.bool_],
    colour: tuple[int, int, int],
    share: float = FILL,
) -> None:
    colours[where] = colours[where] * (1 - share) + np.array(colour) * share


def _scaled(colours: RGB, spacing: tuple[float, float]) -> Image.Image:
    rows, columns = colours.shape[:2]
    size = (round(columns * spacing[1] * MM_PIXELS), round(rows * spacing[0] * MM_PIXELS))
    return Image.fromarray(colours).resize(size, Image.Resampling.NEAREST)


def _outline(image: Image.Image, mask: NDArray[np.uint8], spacing: tuple[float, float]) -> None:
    """Lines between pixels of different labels."""
    draw = ImageDraw.Draw(image)
    high, wide = spacing[0] * MM_PIXELS, spacing[1] * MM_PIXELS
    for y, x in np.argwhere(mask[1:] != mask[:-1]):
        draw.line((x * wide, (y + 1) * high, (x + 1) * wide, (y + 1) * high), fill=EXPECTED)
    for y, x in np.argwhere(mask[:, 1:] != mask[:, :-1]):
        draw.line(((x + 1) * wide, y * high, (x + 1) * wide, (y + 1) * high), fill=EXPECTED)


def _letters(image: Image.Image, plane: _Plane) -> None:
    """Towards which side of the patient each edge lies."""
    draw = ImageDraw.Draw(image)
    width, height = image.size
    places = (
        (4, height // 2 - 6, _letter(-plane.right)),
        (width - 12, height // 2 - 6, _letter(plane.right)),
        (width // 2 - 4, 2, _letter(-plane.down)),
        (width // 2 - 4, height - 14, _letter(plane.down)),
    )
    for x, y, letter in places:
        draw.text((x, y), letter, fill=(255, 230, 120))


def _letter(direction: NDArray[np.float64]) -> str:
    axis = int(np.abs(direction).argmax())
    return LETTERS[axis][int(direction[axis] > 0)]


def _encoded(image: Image.Image) -> str:
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
