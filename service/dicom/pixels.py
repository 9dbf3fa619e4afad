"""From a chosen series to a volume, and from the volume's mask back to the native slices."""

import math
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import groupby

import numpy as np
from numpy.typing import NDArray

from model.postprocess import Shown
from model.types import MaskArray, Modality, NativeArray
from model.volume import Volume

from .errors import DicomInputError
from .geometry import NativeGrid
from .outlines import outline_at
from .planes import Plane
from .quiet import quiet
from .rawpixels import FileReader, Stored, UndecodableError, is_native
from .series import Series

AIR_HU = -1024
TISSUE_HU = (-500.0, 3000.0)  # a padding value in here would punch holes into the patient
MAX_THREADS = 4


@dataclass(frozen=True, eq=False)
class LoadedSeries:
    """``volume``: the series on an equidistant grid, HU for CT. ``native``: the slices as they
    are, in the order of ``series.instances``. ``notes``: what was done to the values."""

    series: Series
    volume: Volume
    native: NativeGrid
    notes: tuple[str, ...]

    def mask_to_native(self, mask: MaskArray) -> MaskArray:
        """A mask ``(z, y, x)`` of the volume's grid on the native slices, ``(n, rows, columns)``
        in the order of ``series.instances``. Exact where the slices are equidistant or lie on the
        grid (one is missing); a slice between two of the grid gets the outline between theirs."""
        if self.native.uniform:
            return mask
        return np.stack([outline_at(mask, place) for place in self._places(mask)])

    @property
    def shown(self) -> Shown | None:
        """What of a mask of the volume's grid the native slices show; ``None`` where the grid's
        slices are the native ones."""
        return None if self.native.uniform else self._shown

    def _shown(self, mask: MaskArray) -> MaskArray:
        result = np.zeros_like(mask)
        for place in self._places(mask):
            own = outline_at(mask, place)
            for index in {math.floor(place), math.ceil(place)}:
                both = np.minimum(own, mask[index])  # of tumour on liver, liver
                np.maximum(result[index], both, out=result[index])
        return result

    def _places(self, mask: MaskArray) -> list[float]:
        """Of the native slices, in slices of ``mask``."""
        places = np.minimum(self.native.distances / self.native.pitch, len(mask) - 1)
        found: list[float] = places.tolist()
        return found


def load(series: Series) -> LoadedSeries:
    """Decode, rescale and place a usable series.

    Raises ``DicomInputError`` (``undecodable_pixel_data``) when a codec refuses the pixels.
    """
    grid = series.usable_grid()
    values, notes = native_values(series)
    volume = Volume(_equidistant(values, grid), grid.affine, series.modality)
    return LoadedSeries(series, volume, grid, notes)


def native_values(
    series: Series, chosen: slice = slice(None)
) -> tuple[NativeArray, tuple[str, ...]]:
    """The slices as they are, ``(n, rows, columns)`` in the order of ``series.instances``, HU for
    CT; and what was done to the values.

    Raises ``DicomInputError`` (``undecodable_pixel_data``) when a codec refuses the pixels.
    """
    planes = series.instances[chosen]
    try:
        with quiet():
            stored = _read(planes)
    except UndecodableError as error:
        raise DicomInputError(
            "the pixel data cannot be decoded", code="undecodable_pixel_data"
        ) from error
    return _values(stored, planes, series.modality)


def _read(planes: Sequence[Plane]) -> Stored:
    """Stored values, ``(n, rows, columns)``."""
    first = planes[0].file
    kinds = {(plane.file.signed, plane.file.bits[0]) for plane in planes}
    size = max(bits for _, bits in kinds) // 8
    signed = any(signed for signed, _ in kinds)
    mixed = len({signed for signed, _ in kinds}) > 1
    out = np.empty(
        (len(planes), first.rows, first.columns),
        np.dtype(f"{'i' if signed else 'u'}{size * 2 if mixed else size}"),
    )
    runs = [list(run) for _, run in groupby(enumerate(planes), key=lambda item: item[1].file.path)]
    if len(runs) == 1 or _native(planes):
        for run in runs:
            _read_run(run, out)
        return out
    with ThreadPoolExecutor(min(MAX_THREADS, os.cpu_count() or 1)) as pool:
        list(pool.map(lambda run: _read_run(run, out), runs))
    return out


def _native(planes: Sequence[Plane]) -> bool:
    return all(is_native(plane.file) for plane in planes)


def _read_run(run: list[tuple[int, Plane]], out: Stored) -> None:
    reader = FileReader.open(run[0][1].file)
    if len(run) == 1 or reader.native:
        for index, plane in run:
            out[index] = reader.stored(plane.frame)
        return
    place = {plane.frame: index for index, plane in run}
    for frame, values in enumerate(reader.every(), start=1):
        if frame in place:
            out[place[frame]] = values


def _values(
    stored: Stored, planes: Sequence[Plane], modality: Modality
) -> tuple[NativeArray, tuple[str, ...]]:
    """Stored values to HU or signal, and what to tell about it."""
    padded, notes = _padding(stored, planes[0], modality)
    values = _rescale(stored, [plane.rescale for plane in planes])
    if modality == "ct":
        values = _hounsfield(values)
        if padded is not None:
            values[padded] = AIR_HU
        np.maximum(values, np.asarray(AIR_HU, values.dtype), out=values)
    return values, notes


def _hounsfield(values: NDArray[np.generic]) -> NDArray[np.generic]:
    """In a dtype that can hold air."""
    if values.dtype != np.uint16:
        return values
    fits = int(values.max()) < 2**15
    return values.view(np.int16) if fits else values.astype(np.float32)


def _rescale(stored: Stored, rescale: Sequence[tuple[float, float]]) -> NDArray[np.generic]:
    """Slope and intercept slice by slice; integers stay integers where the result is exact."""
    if all(pair == (1.0, 0.0) for pair in rescale):
        return _narrow(stored)
    low, high = _extremes(stored, rescale)
    whole = all(slope.is_integer() and shift.is_integer() for slope, shift in rescale)
    if not (whole and low >= -(2**15) and high < 2**15):
        return _affine(stored, rescale, np.dtype(np.float32))
    if len(set(rescale)) == 1 and rescale[0][0] == 1.0 and stored.itemsize == 2:
        # Modulo 2**16 this is exact, because every result fits.
        shift = np.asarray(int(rescale[0][1]) % 2**16).astype(np.uint16)
        return (stored.view(np.uint16) + shift).view(np.int16)
    return _affine(stored, rescale, np.dtype(np.int16))


def _affine(
    stored: Stored, rescale: Sequence[tuple[float, float]], dtype: np.dtype[np.generic]
) -> NDArray[np.generic]:
    out = np.empty(stored.shape, dtype)
    for index, (slope, shift) in enumerate(rescale):
        out[index] = stored[index] * slope + shift
    return out


def _narrow(stored: Stored) -> NDArray[np.generic]:
    """Integers as int16 or uint16 where they fit, else float32."""
    if stored.itemsize <= 2 and stored.dtype != np.int8:
        return stored if stored.itemsize == 2 else stored.astype(np.int16)
    low, high = int(stored.min()), int(stored.max())
    for dtype in (np.int16, np.uint16):
        if np.iinfo(dtype).min <= low and high <= np.iinfo(dtype).max:
            return stored.astype(dtype)
    return stored.astype(np.float32)


def _extremes(stored: Stored, rescale: Sequence[tuple[float, float]]) -> tuple[float, float]:
    low, high = float(stored.min()), float(stored.max())
    ends = [end * slope + shift for slope, shift in set(rescale) for end in (low, high)]
    return min(ends), max(ends)


def _padding(
    stored: Stored, plane: Plane, modality: Modality
) -> tuple[NDArray[np.bool_] | None, tuple[str, ...]]:
    """Where a CT's slices hold padding instead of an image."""
    if modality != "ct" or plane.file.padding is None:
        return None, ()
    low, high = (_as_stored(value, plane) for value in plane.file.padding)
    slope, shift = plane.rescale
    if any(TISSUE_HU[0] < value * slope + shift < TISSUE_HU[1] for value in (low, high)):
        return None, ("the declared padding value lies within tissue and was ignored",)
    return (stored >= low) & (stored <= high), ()


def _as_stored(value: int, plane: Plane) -> int:
    """A padding value written with the wrong sign (63536 for -2000) in the sign of the pixels."""
    bits = plane.file.bits[0]
    span: int = 2**bits
    if plane.file.signed and value >= span // 2:
        return value - span
    return value + span if value < 0 and not plane.file.signed else value


def _equidistant(values: NativeArray, grid: NativeGrid) -> NativeArray:
    """Linear interpolation along the stack, onto ``grid.affine``; a no-op where it is uniform."""
    if grid.uniform:
        return values
    wanted = np.arange(grid.regular_slices) * grid.pitch
    place = np.interp(wanted, grid.distances, np.arange(grid.slices))
    out = np.empty((len(wanted), *values.shape[1:]), values.dtype)
    for index, at in enumerate(place):
        out[index] = _between(values, float(at))
    return out


def _between(values: NativeArray, at: float) -> NativeArray:
    below = int(at)
    weight = at - below
    if weight < 1e-6 or below + 1 >= len(values):
        exact: NativeArray = values[below]
        return exact
    pair = values[below : below + 2].astype(np.float64)
    mixed: NDArray[np.float64] = pair[0] * (1 - weight) + pair[1] * weight
    if np.issubdtype(values.dtype, np.integer):
        return np.asarray(np.rint(mixed))
    return mixed
