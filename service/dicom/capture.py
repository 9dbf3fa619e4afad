"""A mask burnt into pictures: a secondary-capture series for archives that show nothing newer.

Single-frame, uncompressed RGB, one image per slice: what the oldest viewers take. The pictures keep
the slices' place in the patient, so that viewers can cross-reference them.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage

from model.types import NativeArray

from .algorithm import described
from .derived import derived_dataset, place_in_series, referred
from .overlay import Caption, Picture, paint
from .pixels import native_values
from .sanitise import COMPRESSION, Reference, Sources, canonical_sources, decimals
from .segread import SegContent
from .series import Series

Window: TypeAlias = tuple[float, float]  # intensities of black and of white

SERIES_NUMBER: Final = 9004
CT_WINDOW: Final[Window] = (-160.0, 240.0)  # centre 40, width 400 HU
MR_PERCENTILES: Final = (1.0, 99.5)
MARGIN_MM: Final = 10.0
MIN_SIDE_PX: Final = 512  # smaller pictures leave no room for words and hide tissue behind lines
AXES: Final = (("L", "R"), ("P", "A"), ("H", "F"))
SIDES: Final = {"L": "Left", "R": "Right", "P": "Posterior", "A": "Anterior", "H": "Superior",
                "F": "Inferior"}  # fmt: skip
OBLIQUE: Final = 0.3  # a direction cosine below this adds no letter


@dataclass(frozen=True, eq=False)
class _Plan:
    """``chosen``: native slices with a picture; ``factor``: pixels of a picture per voxel."""

    series: Series
    content: SegContent
    sources: Sources
    uid_key: str
    chosen: slice
    window: Window
    factor: int


def build_capture(
    series: Series, content: SegContent, uid_key: str, sources: Sources | None = None
) -> Iterator[Dataset]:
    """Secondary Capture Images of every slice from the first to the last that holds liver, and of
    ``MARGIN_MM`` beyond; of a mask without a voxel, one image that says so in words.

    Windowed for the liver, with the outlines of liver and tumour in the segments' colours, the
    sides of the patient, the place of the slice and "research use only". Reads the pixels again;
    raises ``DicomInputError`` (``undecodable_pixel_data``). One image at a time: a series of
    pictures is several times as large as its source.
    """
    sources = sources or canonical_sources(series, uid_key)
    chosen = _chosen(series, content)
    values, _ = native_values(series, chosen)
    grid = series.usable_grid()
    factor = max(1, -(-MIN_SIDE_PX // max(grid.rows, grid.columns)))
    plan = _Plan(series, content, sources, uid_key, chosen, _window(series, values), factor)
    order = _order(series, chosen)
    for number, index in enumerate(order, start=1):
        yield _image(plan, values[index - chosen.start], index, number)


def _chosen(series: Series, content: SegContent) -> slice:
    mask, step = content.mask, series.usable_grid().step
    held = np.flatnonzero(mask.reshape(len(mask), -1).any(axis=1))
    if not held.size:
        return slice(len(mask) // 2, len(mask) // 2 + 1)
    margin = max(1, round(MARGIN_MM / step))
    return slice(max(0, int(held[0]) - margin), min(len(mask), int(held[-1]) + margin + 1))


def _window(series: Series, values: NativeArray) -> Window:
    if series.modality == "ct":
        return CT_WINDOW
    low, high = np.percentile(np.asarray(values[:, ::2, ::2], np.float32), MR_PERCENTILES)
    return float(low), float(max(high, low + 1e-6))


def _order(series: Series, chosen: slice) -> list[int]:
    """As the source's images are numbered, so that both series scroll the same way."""
    indices = range(len(series.instances))[chosen]
    return sorted(indices, key=lambda index: series.instances[index].number)


def _image(plan: _Plan, values: NativeArray, index: int, number: int) -> Dataset:
    header = plan.sources.headers[index]
    dataset = derived_dataset(
        header, plan.content, SecondaryCaptureImageStorage, ExplicitVRLittleEndian
    )
    place_in_series(dataset, plan.uid_key, "capture", series_number=SERIES_NUMBER, instance=number)
    dataset.Modality = "OT"
    dataset.Laterality = ""
    title = "Liver outlines, research use only"
    dataset.SeriesDescription = described(title, plan.content.algorithm)
    dataset.ConversionType = "WSD"
    dataset.ImageType = ["DERIVED", "SECONDARY"]
    dataset.BurnedInAnnotation = "YES"
    _add_derivation(dataset, plan, header, plan.sources.references[index])
    _add_place(dataset, plan, header)
    _add_pixels(dataset, paint(_picture(plan, values, index)))
    return dataset


def _add_derivation(dataset: Dataset, plan: _Plan, header: Dataset, source: Reference) -> None:
    algorithm, (low, high) = plan.content.algorithm, plan.window
    dataset.DerivationDescription = (
        f"Outlines by {algorithm.name} {algorithm.version} burnt in; shown from {low:g} to "
        f"{high:g}. Research use only."
    )
    item = referred(source)
    item.SpatialLocationsPreserved = "YES"
    purpose = Dataset()
    purpose.CodeValue, purpose.CodingSchemeDesignator = "121322", "DCM"
    purpose.CodeMeaning = "Source image for image processing operation"
    item.PurposeOfReferenceCodeSequence = [purpose]
    dataset.SourceImageSequence = [item]
    dataset.LossyImageCompression = "00"
    for keyword in COMPRESSION:
        if keyword in header:
            setattr(dataset, keyword, header[keyword].value)


def _add_place(dataset: Dataset, plan: _Plan, header: Dataset) -> None:
    """The source's, moved by part of a voxel where a voxel has several pixels."""
    spacing = np.array([float(value) for value in header.PixelSpacing])
    cosines = np.array([float(value) for value in header.ImageOrientationPatient])
    corner = np.array([float(value) for value in header.ImagePositionPatient])
    inward = (1 / plan.factor - 1) / 2
    moved = corner + inward * (cosines[:3] * spacing[1] + cosines[3:] * spacing[0])
    dataset.ImagePositionPatient = decimals(moved.tolist())
    dataset.ImageOrientationPatient = header.ImageOrientationPatient
    dataset.PixelSpacing = decimals((spacing / plan.factor).tolist())
    dataset.SliceThickness = header.SliceThickness
    dataset.PatientOrientation = [_letters(cosines[:3]), _letters(cosines[3:])]


def _letters(direction: NDArray[np.float64]) -> str:
    """Where a direction leads (PS3.3 C.7.6.1.1.1), the strongest part first."""
    strongest = np.argsort(-np.abs(direction), kind="stable")
    named = [AXES[axis][int(direction[axis] < 0)] for axis in strongest
             if abs(direction[axis]) > OBLIQUE]  # fmt: skip
    return "".join(named)


def _picture(plan: _Plan, values: NativeArray, index: int) -> Picture:
    cosines = np.array([float(v) for v in plan.sources.headers[index].ImageOrientationPatient])
    return Picture(
        values=values,
        mask=plan.content.mask[index],
        window=plan.window,
        factor=plan.factor,
        labels=plan.content.labels,
        caption=Caption(
            title=f"{plan.content.algorithm.name} - research use only",
            left=_letters(-cosines[:3]),
            right=_letters(cosines[:3]),
            place=_place(plan.series, index),
            tumour=bool((plan.content.mask == plan.content.labels[-1].value).any()),
            evaluable=bool(plan.content.mask.any()),
        ),
    )


def _place(series: Series, index: int) -> str:
    """How far along the axis that the slices are stacked along the middle of a slice lies."""
    grid = series.usable_grid()
    middle = np.array([[(grid.columns - 1) / 2, (grid.rows - 1) / 2]])
    axis = int(np.argmax(np.abs(grid.axes[:, 2])))
    along = float(grid.in_patient(index, middle)[0, axis])
    return f"{SIDES[AXES[axis][int(along < 0)]]} {abs(along):.1f} mm"


def _add_pixels(dataset: Dataset, pixels: NDArray[np.uint8]) -> None:
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 3, "RGB"
    dataset.PlanarConfiguration = 0
    dataset.Rows, dataset.Columns = pixels.shape[:2]
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 8, 8, 7
    dataset.PixelRepresentation = 0
    data = pixels.tobytes()
    dataset.PixelData = data + b"\x00" * (len(data) % 2)
    dataset["PixelData"].VR = "OB"
