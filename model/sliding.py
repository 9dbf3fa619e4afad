"""The sliding window: a plan of tiles and a Gaussian blend over any ``predict`` callable.

Plan and blend are those of MONAI's ``sliding_window_inference(mode="gaussian")`` (section 3.3.3),
which the tests hold them to. Two savings change nothing: a window that is all zeros is not run
(the network maps zeros to its head's bias), and windows travel in batches. A third, ``follow``,
leaves out windows that no liver comes near to.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import product
from math import prod

import numpy as np
from numpy.typing import NDArray

from .errors import ConfigError
from .types import Batch, ImageArray, ShapeZYX

BATCH = 4  # windows per call of an engine
_SIGMA = 0.125  # of the patch side
_LEAST = 1e-3  # a corner still counts this much
_SPECK = 100  # voxels; less foreground than this leads nowhere
_REACH = 4  # voxels; foreground this near to a window may go on inside it
_UNSEEN = 10.0  # background logit where no window was run

Predict = Callable[[Batch], Batch]


@dataclass(frozen=True)
class Window:
    """A patch's first voxel, ``(z, y, x)``, and its shape."""

    start: ShapeZYX
    shape: ShapeZYX

    @property
    def box(self) -> tuple[slice, slice, slice]:
        z, y, x = (slice(a, a + n) for a, n in zip(self.start, self.shape, strict=True))
        return z, y, x

    @property
    def around(self) -> tuple[slice, slice, slice]:
        """The box and ``_REACH`` voxels more on every side."""
        z, y, x = (slice(max(0, s.start - _REACH), s.stop + _REACH) for s in self.box)
        return z, y, x


def plan(shape: ShapeZYX, patch: ShapeZYX, overlap: float) -> tuple[Window, ...]:
    """Windows that cover ``shape``, a step of ``int(patch * (1 - overlap))`` apart, the last of
    each axis shifted back to fit. Raises ``ConfigError`` when the patch does not fit."""
    if any(side < needed for side, needed in zip(shape, patch, strict=True)):
        raise ConfigError(f"a patch of {patch} does not fit into a volume of {shape}; pad it")
    starts = [_starts(side, window, overlap) for side, window in zip(shape, patch, strict=True)]
    return tuple(Window((z, y, x), patch) for z, y, x in product(*starts))


def window_count(shape: ShapeZYX, patch: ShapeZYX, overlap: float) -> int:
    """How many windows ``plan`` would give; of any shape at once."""
    sides = zip(shape, patch, strict=True)
    return prod(_grating(side, window, overlap)[0] for side, window in sides)


def importance(patch: ShapeZYX) -> ImageArray:
    """How much each voxel of a window counts: a Gaussian of sigma 0.125 x side, at least 1e-3."""
    z, y, x = (_gaussian(side) for side in patch)
    weights: ImageArray = z[:, None, None] * y[:, None] * x
    np.maximum(weights, np.float32(max(float(weights.min()), _LEAST)), out=weights)
    return weights


def slide(
    array: ImageArray,
    patch: ShapeZYX,
    overlap: float,
    predict: Predict,
    classes: int,
    *,
    batch: int = 1,
    skip_empty: bool = True,
    follow: bool = False,
    progress: Callable[[float], None] | None = None,
) -> ImageArray:
    """Blended logits ``(classes, z, y, x)`` of ``array`` ``(z, y, x)``.

    ``predict`` maps ``(n, 1, *patch)`` to ``(n, classes, *patch)``, n up to ``batch``.
    ``skip_empty``: windows of zeros share the logits of one such window. ``follow``: every other
    window is run, and of the rest only those that foreground reaches; what no window saw is
    background. ``progress`` hears the fraction done after each batch, and may raise to stop.
    """
    windows = plan(_shape(array), patch, overlap)
    blend = _Blend(classes, _shape(array), importance(patch))
    full, empty = _split(array, windows) if skip_empty else (windows, ())
    if empty:
        nothing = predict(np.zeros((1, 1, *patch), np.float32))[0]
        for window in empty:
            blend.add(window, nothing)
    done = 0
    for wave in _following(full, blend) if follow else (full,):
        for group in _groups(wave, batch):
            logits = predict(np.stack([array[window.box] for window in group])[:, None])
            for window, part in zip(group, logits, strict=True):
                blend.add(window, part)
            done += len(group)
            if progress is not None:
                progress(done / len(full))
    return blend.result()


class _Blend:
    """The running weighted mean of logits."""

    def __init__(self, classes: int, shape: ShapeZYX, weights: ImageArray) -> None:
        self._sum = np.zeros((classes, *shape), np.float32)
        self._weight = np.zeros(shape, np.float32)
        self._weights = weights
        self._scratch = np.empty((classes, *weights.shape), np.float32)

    def add(self, window: Window, logits: ImageArray) -> None:
        np.multiply(logits, self._weights, out=self._scratch)
        self._sum[:, *window.box] += self._scratch
        self._weight[window.box] += self._weights

    def foreground(self) -> NDArray[np.bool_]:
        """Where some class beats the background so far."""
        found: NDArray[np.bool_] = (self._sum[1:] > self._sum[0]).any(axis=0)
        return found

    def result(self) -> ImageArray:
        unseen = self._weight == 0
        self._weight[unseen] = 1
        self._sum /= self._weight
        self._sum[0][unseen] = _UNSEEN
        return self._sum


def _shape(array: ImageArray) -> ShapeZYX:
    z, y, x = array.shape
    return z, y, x


def _starts(side: int, window: int, overlap: float) -> list[int]:
    count, step = _grating(side, window, overlap)
    return [min(index * step, side - window) for index in range(count)]


def _grating(side: int, window: int, overlap: float) -> tuple[int, int]:
    """How many windows along a side, and how far apart."""
    step = max(1, int(window * (1 - overlap)))
    return 1 + -(-(side - window) // step), step


def _gaussian(side: int) -> ImageArray:
    at = np.arange(side, dtype=np.float32) - np.float32((side - 1) / 2)
    curve: ImageArray = np.exp(at**2 / np.float32(-2 * (_SIGMA * side) ** 2))
    return curve


def _split(
    array: ImageArray, windows: tuple[Window, ...]
) -> tuple[tuple[Window, ...], tuple[Window, ...]]:
    """Windows with content, and windows without."""
    filled = [bool(array[window.box].any()) for window in windows]
    full = tuple(window for window, some in zip(windows, filled, strict=True) if some)
    return full, tuple(window for window, some in zip(windows, filled, strict=True) if not some)


def _following(windows: tuple[Window, ...], blend: _Blend) -> Iterator[tuple[Window, ...]]:
    """Every other window, as on a chess board; then, round after round, those that foreground
    touches or comes near to, until it touches none."""
    wave, waiting = _chess_board(windows)
    while wave:
        yield tuple(wave)
        found = blend.foreground()
        wave = [w for w in waiting if np.count_nonzero(found[w.around]) > _SPECK]
        waiting = [window for window in waiting if window not in wave]


def _chess_board(windows: tuple[Window, ...]) -> tuple[list[Window], list[Window]]:
    """The windows on white and on black fields of their grid."""
    starts = [sorted({window.start[axis] for window in windows}) for axis in range(3)]
    fields: tuple[list[Window], list[Window]] = ([], [])
    for window in windows:
        place = sum(line.index(at) for line, at in zip(starts, window.start, strict=True))
        fields[place % 2].append(window)
    return fields


def _groups(windows: tuple[Window, ...], batch: int) -> Iterator[tuple[Window, ...]]:
    for start in range(0, len(windows), batch):
        yield windows[start : start + batch]
