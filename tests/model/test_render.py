from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from model.render import (
    COLOURS,
    display_window,
    preview,
    render_slice,
)
from model.volume import Volume


def pixels(png: bytes) -> np.ndarray:
    return np.asarray(Image.open(BytesIO(png)).convert("RGB")).astype(int)


def centre_of(picture: np.ndarray, value: int) -> tuple[float, float]:
    """Centre (row, column) of a class's contour, as fractions of the picture."""
    found = np.argwhere((picture == COLOURS[value]).all(axis=-1))
    return tuple(found.mean(axis=0) / picture.shape[:2])


def test_a_slice_is_true_to_scale() -> None:
    picture = pixels(render_slice(np.zeros((50, 100)), None, (0, 1), (4.0, 1.0), scale=2.0))
    assert picture.shape == (400, 200, 3)
    assert pixels(render_slice(np.zeros((50, 100)), None, (0, 1), (4.0, 1.0))).shape[0] == 420


def test_the_window_sets_black_and_white() -> None:
    array = np.repeat([[-200.0, -100.0, 0.0, 100.0, 300.0]], 5, axis=0)
    picture = pixels(render_slice(array, None, (-100, 100), (1, 1), scale=1.0))
    assert picture[2, :, 0].tolist() == [0, 0, 127, 255, 255]


def test_contour_and_fill_carry_the_class_colours() -> None:
    mask = np.zeros((40, 40), np.uint8)
    mask[10:30, 10:30], mask[15:20, 15:20] = 1, 2
    picture = pixels(render_slice(np.zeros((40, 40)), mask, (0, 1), (1, 1), scale=1.0))
    assert tuple(picture[10, 15]) == COLOURS[1]
    assert tuple(picture[15, 15]) == COLOURS[2]
    assert 0 < picture[25, 25].sum() < sum(COLOURS[1])
    assert picture[5, 5].sum() == 0


def test_a_preview_is_the_same_however_stored(turned) -> None:
    first, second = (turned(name) for name in ("LPS", "AIR"))
    one, other = preview(first.volume, first.mask), preview(second.volume, second.mask)
    assert one == other
    assert one.startswith(b"\x89PNG")
    for colour in COLOURS.values():
        assert (pixels(one) == colour).all(axis=-1).any()
    height, width, _ = pixels(one).shape
    row, column = centre_of(pixels(one)[: height // 2, : width // 3], 1)
    assert column < 0.45  # the liver lies in the patient's right, which is left in a picture ...
    assert row < 0.5  # ... and somewhat in front


def test_a_preview_without_a_mask(phantom) -> None:
    empty = np.zeros_like(phantom.mask)
    assert preview(phantom.volume) == preview(phantom.volume, empty)


@pytest.mark.parametrize("shape", [(2, 3, 4), (3, 400, 2), (300, 3, 3)])
def test_odd_shapes_are_drawn(shape: tuple[int, int, int]) -> None:
    volume = Volume(np.zeros(shape, np.int16), np.eye(4), "mr")
    assert preview(volume, np.ones(shape, np.uint8)).startswith(b"\x89PNG")


def test_mr_windows_follow_the_image(phantom) -> None:
    array = phantom.volume.array.astype(np.float32) * 1000
    lo, hi = display_window(Volume(array, phantom.volume.affine, "mr"))
    assert array.min() <= lo < hi <= array.max()
    assert display_window(phantom.volume) == (-110.0, 190.0)
