"""The lesions' long axes as a report of lines on images, for viewers that draw no other report.

Of a report with this title OHIF 3.12 and 3.13 crash on a measurement group without 2-D coordinates,
and take a group for a line only under the name of their own tool, so it has nothing else in it.
"""

from collections.abc import Sequence
from copy import copy
from typing import Final

import highdicom.sr as hd
import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian

from model.measure import Lesion

from . import codes
from .algorithm import described
from .derived import same_moment
from .geometry import NativeGrid
from .quiet import quiet
from .sanitise import Reference, Sources, canonical_sources
from .seg import MANUFACTURER, MODEL_NAME
from .segread import SegContent
from .series import Series
from .sr import (
    MAX_LESIONS,
    author_context,
    lesion_tracking_uid,
    long_axis,
    named_algorithm,
    procedure,
)
from .uids import derived_uid

SERIES_NUMBER: Final = 9006
LENGTH_TOOL: Final = "Cornerstone3DTools@^0.1.0:Length"
CENTRE: Final = 0.5  # SCOORD counts from the outer corner of the first pixel (PS3.3 C.18.6.1.1)


def build_sr_viewer(
    series: Series,
    content: SegContent,
    lesions: Sequence[Lesion],
    uid_key: str,
    sources: Sources | None = None,
) -> Dataset | None:
    """Comprehensive SR, TID 1500, with one group per lesion of ``lesions[:MAX_LESIONS]`` that is
    longer than one voxel: its long axis as POLYLINE on the source slice where it lies.

    ``None`` when there is no such lesion. Tracking UIDs are those of ``build_sr``.
    """
    long = [lesion for lesion in lesions[:MAX_LESIONS] if lesion.long_axis_mm > 0]
    if not long:
        return None
    sources = sources or canonical_sources(series, uid_key)
    grid = series.usable_grid()
    slices = [_slice(grid, lesion) for lesion in long]
    with quiet():
        groups = [
            _group(lesion, _line(grid, index, lesion), sources.references[index], content, uid_key)
            for lesion, index in zip(long, slices, strict=True)
        ]
        report = hd.MeasurementReport(
            observation_context=author_context(content.algorithm),
            procedure_reported=procedure(series.modality),
            imaging_measurements=groups,
            title=codes.IMAGING_REPORT,
        )
        dataset = _document(report[0], _evidence(sources, slices), content, uid_key)
    same_moment(dataset, content)
    return dataset


def _document(
    report: Dataset, evidence: list[Dataset], content: SegContent, uid_key: str
) -> hd.ComprehensiveSR:
    return hd.ComprehensiveSR(
        evidence=evidence,
        content=report,
        series_instance_uid=derived_uid(uid_key, "sr viewer series"),
        series_number=SERIES_NUMBER,
        sop_instance_uid=derived_uid(uid_key, "sr viewer instance"),
        instance_number=1,
        manufacturer=MANUFACTURER,
        manufacturer_model_name=MODEL_NAME,
        software_versions=content.algorithm.version,
        device_serial_number=content.algorithm.name,
        is_complete=True,
        is_final=False,
        is_verified=False,
        transfer_syntax_uid=ExplicitVRLittleEndian,
        series_description=described("Liver lesions, long axes", content.algorithm),
    )


def _slice(grid: NativeGrid, lesion: Lesion) -> int:
    """The native slice nearest to the long axis."""
    end = np.array(lesion.long_axis_ends_mm[0])
    height = float((end - grid.positions[0]) @ grid.axes[:, 2])
    return int(np.argmin(np.abs(grid.distances - height)))


def _line(grid: NativeGrid, index: int, lesion: Lesion) -> NDArray[np.float64]:
    """Its two ends as SCOORD counts, ``(2, 2)``, (column, row)."""
    points = grid.in_slice(index, np.array(lesion.long_axis_ends_mm)) + CENTRE
    inside: NDArray[np.float64] = np.clip(points, 0.0, [grid.columns, grid.rows])
    return inside


def _group(
    lesion: Lesion,
    line: NDArray[np.float64],
    reference: Reference,
    content: SegContent,
    uid_key: str,
) -> hd.MeasurementsAndQualitativeEvaluations:
    image = hd.SourceImageForRegion(
        referenced_sop_class_uid=reference.sop_class_uid,
        referenced_sop_instance_uid=reference.sop_instance_uid,
        referenced_frame_numbers=None if reference.frame is None else [reference.frame],
    )
    drawn = hd.CoordinatesForMeasurement(
        graphic_type=hd.GraphicTypeValues.POLYLINE, graphic_data=line, source_image=image
    )
    return hd.MeasurementsAndQualitativeEvaluations(
        tracking_identifier=hd.TrackingIdentifier(
            uid=lesion_tracking_uid(uid_key, lesion.number), identifier=LENGTH_TOOL
        ),
        finding_type=codes.LESION,
        finding_sites=[hd.FindingSite(codes.LIVER)],
        method=codes.ARTIFICIAL_INTELLIGENCE,
        algorithm_id=named_algorithm(content.algorithm),
        measurements=[long_axis(lesion.long_axis_mm, [drawn])],
    )


def _evidence(sources: Sources, slices: Sequence[int]) -> list[Dataset]:
    """The images that lines lie on, each once, under their true names."""
    found: dict[str, Dataset] = {}
    for index in slices:
        reference, header = sources.references[index], copy(sources.headers[index])
        header.SOPClassUID = reference.sop_class_uid
        header.SOPInstanceUID = reference.sop_instance_uid
        found.setdefault(reference.sop_instance_uid, header)
    return list(found.values())
