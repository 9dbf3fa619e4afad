"""A mask as RT Structure Set: closed planar contours for systems that draw no segmentations."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.uid import ImplicitVRLittleEndian, RTStructureSetStorage

from model.spec import LIVER_LABEL, Code
from model.types import BACKGROUND

from .algorithm import described
from .codes import as_rgb
from .contours import outlines
from .derived import derived_dataset, place_in_series, referred, referred_instances
from .geometry import NativeGrid
from .sanitise import Reference, Sources, canonical_sources
from .segread import SegContent
from .series import Series

SERIES_NUMBER: Final = 9005
STUDY_CLASS: Final = (
    "1.2.840.10008.3.1.2.3.1"  # Detached Study Management: retired, still asked for
)
WHOLE_LIVER: Final = "Liver including tumour"
WHOLE_LIVER_RGB: Final = (255, 214, 64)
DECIMALS: Final = 3


@dataclass(frozen=True, eq=False)
class _Region:
    """One ROI. ``mask``: ``(n, rows, columns)``."""

    number: int
    name: str
    rgb: tuple[int, int, int]
    type: Code
    mask: NDArray[np.bool_]


def build_rtstruct(
    series: Series, content: SegContent, uid_key: str, sources: Sources | None = None
) -> Dataset:
    """RT Structure Set Storage with one ROI per segment, by its number, and one of the whole liver.

    Contours are in LPS mm of the source's frame of reference; each names its slice. Holes are
    keyholes, see ``outlines``. A ROI without a voxel is described and has no contour. Implicit VR
    Little Endian, because a contour may need more bytes than an explicit DS can count.
    """
    sources = sources or canonical_sources(series, uid_key)
    header, grid = sources.headers[0], series.usable_grid()
    dataset = derived_dataset(header, content, RTStructureSetStorage, ImplicitVRLittleEndian)
    place_in_series(dataset, uid_key, "rtstruct", series_number=SERIES_NUMBER)
    dataset.Modality = "RTSTRUCT"
    dataset.SeriesDescription = described("Liver contours", content.algorithm)
    dataset.OperatorsName = ""
    _add_set(dataset, content, header, sources)
    regions = _regions(content)
    dataset.StructureSetROISequence = [_defined(region, dataset, content) for region in regions]
    dataset.ROIContourSequence = [_drawn(region, grid, sources.references) for region in regions]
    dataset.RTROIObservationsSequence = [_observed(region) for region in regions]
    dataset.ApprovalStatus = "UNAPPROVED"
    return dataset


def _add_set(dataset: Dataset, content: SegContent, header: Dataset, sources: Sources) -> None:
    dataset.StructureSetLabel = "LIVER"
    dataset.StructureSetName = "Liver and liver tumour"
    dataset.StructureSetDescription = f"{content.algorithm.name}, research use only"
    dataset.StructureSetDate = dataset.ContentDate
    dataset.StructureSetTime = dataset.ContentTime
    del dataset.ContentDate, dataset.ContentTime
    series = Dataset()
    series.SeriesInstanceUID = header.SeriesInstanceUID
    series.ContourImageSequence = referred_instances(sources.references)
    study = Dataset()
    study.ReferencedSOPClassUID = STUDY_CLASS
    study.ReferencedSOPInstanceUID = header.StudyInstanceUID
    study.RTReferencedSeriesSequence = [series]
    frame = Dataset()
    frame.FrameOfReferenceUID = header.FrameOfReferenceUID
    frame.RTReferencedStudySequence = [study]
    dataset.ReferencedFrameOfReferenceSequence = [frame]


def _regions(content: SegContent) -> list[_Region]:
    regions = [
        _Region(
            label.value,
            label.name,
            as_rgb(label),
            label.type,
            content.mask == label.value,
        )
        for label in content.labels
    ]
    last = max(region.number for region in regions)
    whole = content.mask != BACKGROUND
    return [*regions, _Region(last + 1, WHOLE_LIVER, WHOLE_LIVER_RGB, LIVER_LABEL.type, whole)]


def _defined(region: _Region, dataset: Dataset, content: SegContent) -> Dataset:
    item = Dataset()
    item.ROINumber = region.number
    item.ReferencedFrameOfReferenceUID = dataset.FrameOfReferenceUID
    item.ROIName = region.name
    item.ROIGenerationAlgorithm = "AUTOMATIC"
    item.ROIGenerationDescription = content.algorithm.name
    return item


def _drawn(region: _Region, grid: NativeGrid, references: tuple[Reference, ...]) -> Dataset:
    item = Dataset()
    item.ROIDisplayColor = list(region.rgb)
    item.ReferencedROINumber = region.number
    contours = list(_contours(region, grid, references))
    if contours:
        item.ContourSequence = contours
    return item


def _contours(
    region: _Region, grid: NativeGrid, references: tuple[Reference, ...]
) -> Iterator[Dataset]:
    held = np.flatnonzero(region.mask.reshape(len(region.mask), -1).any(axis=1))
    for index in held:
        for ring in outlines(region.mask[index]):
            item = Dataset()
            item.ContourImageSequence = [referred(references[index])]
            item.ContourGeometricType = "CLOSED_PLANAR"
            item.NumberOfContourPoints = len(ring)
            item.ContourData = _decimals(grid.in_patient(int(index), ring))
            yield item


def _decimals(points: NDArray[np.float64]) -> list[str]:
    return [f"{value:.{DECIMALS}f}" for value in points.ravel().tolist()]


def _observed(region: _Region) -> Dataset:
    item = Dataset()
    item.ObservationNumber = region.number
    item.ReferencedROINumber = region.number
    item.RTROIIdentificationCodeSequence = [_code(region.type)]
    item.RTROIInterpretedType = ""  # neither an organ at risk nor a target: nobody has planned
    item.ROIInterpreter = ""
    return item


def _code(code: Code) -> Dataset:
    item = Dataset()
    item.CodeValue = code.value
    item.CodingSchemeDesignator = code.scheme
    item.CodeMeaning = code.meaning
    return item
