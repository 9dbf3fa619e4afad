"""A native mask as one DICOM-SEG instance that readers accept."""

from collections.abc import Sequence
from io import BytesIO
from typing import Final, Literal, TypeAlias

import numpy as np
from highdicom import AlgorithmIdentificationSequence
from highdicom.content import PixelMeasuresSequence
from highdicom.seg import SegmentAlgorithmTypeValues, Segmentation, SegmentDescription
from pydicom import dcmwrite
from pydicom.dataset import Dataset
from pydicom.uid import UID, DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian

from model.spec import Label
from model.types import MaskArray

from .algorithm import MANUFACTURER, MODEL_NAME, Algorithm, described
from .codes import ARTIFICIAL_INTELLIGENCE, colour, concept
from .quiet import quiet
from .sanitise import Reference, Sources, canonical_sources, stand_in
from .series import Series
from .uids import derived_uid

SegKind: TypeAlias = Literal["BINARY", "LABELMAP"]

__all__ = ["MANUFACTURER", "MODEL_NAME", "Algorithm", "SegKind", "build_seg", "to_bytes"]

SERIES_NUMBERS: Final[dict[SegKind, int]] = {"BINARY": 9001, "LABELMAP": 9003}
ROLES: Final[dict[SegKind, str]] = {"BINARY": "seg", "LABELMAP": "labelmap"}
MIN_POSITIONS = 2


def build_seg(
    series: Series,
    mask: MaskArray,
    labels: Sequence[Label],
    algorithm: Algorithm,
    uid_key: str,
    sources: Sources | None = None,
    kind: SegKind = "BINARY",
) -> Dataset:
    """Segmentation Storage or, for ``LABELMAP``, Label Map Segmentation Storage; one segment per
    label (and, in a LABELMAP, after them a background of number 0).

    ``mask``: ``(n, rows, columns)`` in the order of ``series.instances``. All UIDs derive from
    ``uid_key`` and ``kind``. Frames empty in a segment (LABELMAP: in all) are omitted; a segment
    without a voxel is described and has none. An empty mask has all-zero frames of the two middle
    slices, because an instance needs frames.
    """
    sources = sources or canonical_sources(series, uid_key)
    chosen, omit_empty = _extent(mask)
    with quiet():
        dataset = Segmentation(
            source_images=list(sources.headers[chosen]),
            pixel_array=np.ascontiguousarray(mask[chosen]),
            segmentation_type=kind,
            segment_descriptions=[_segment(label, algorithm, uid_key) for label in labels],
            series_instance_uid=derived_uid(uid_key, f"{ROLES[kind]} series"),
            series_number=SERIES_NUMBERS[kind],
            sop_instance_uid=derived_uid(uid_key, f"{ROLES[kind]} instance"),
            instance_number=1,
            manufacturer=MANUFACTURER,
            manufacturer_model_name=MODEL_NAME,
            software_versions=algorithm.version,
            device_serial_number=algorithm.name,
            transfer_syntax_uid=ExplicitVRLittleEndian,
            omit_empty_frames=omit_empty,
            content_label="LIVER",
            content_description="Liver and liver tumour",
            series_description=described("Liver segmentation", algorithm),
            pixel_measures=_measures(sources.headers[0], series.usable_grid().step),
        )
    dataset.ContentCreatorName = None  # type 2; highdicom leaves it out
    _put_background_last(dataset)
    _settle_references(dataset, sources.references[chosen])
    _derive_dimension_uid(dataset, uid_key, kind)
    return dataset


def to_bytes(dataset: Dataset, *, deflate: bool = False) -> bytes:
    """The instance as a DICOM file, in its own transfer syntax or deflated (PS3.5 A.5)."""
    buffer = BytesIO()
    with quiet():
        if deflate:
            dataset.file_meta.TransferSyntaxUID = UID(DeflatedExplicitVRLittleEndian)
        dcmwrite(buffer, dataset, enforce_file_format=True)
    return buffer.getvalue()


def tracking_uid(uid_key: str, label: Label) -> str:
    """The tracking UID of a label's segment, the same in SEG and SR."""
    return derived_uid(uid_key, f"segment {label.value}")


def _extent(mask: MaskArray) -> tuple[slice, bool]:
    """The slices that hold mask, and whether empty frames can be omitted.

    A mask in fewer than two slices gets two neighbouring ones with all their frames: from a single
    position readers cannot tell the slice spacing (dcmqi then takes what lies in memory).
    """
    held = np.flatnonzero(mask.reshape(len(mask), -1).any(axis=1))
    if held.size >= MIN_POSITIONS:
        return slice(int(held[0]), int(held[-1]) + 1), True
    first = int(held[0]) if held.size else len(mask) // 2
    first = min(first, len(mask) - MIN_POSITIONS)
    return slice(first, first + MIN_POSITIONS), False


def _segment(label: Label, algorithm: Algorithm, uid_key: str) -> SegmentDescription:
    return SegmentDescription(
        segment_number=label.value,
        segment_label=label.name,
        segmented_property_category=concept(label.category),
        segmented_property_type=concept(label.type),
        algorithm_type=SegmentAlgorithmTypeValues.AUTOMATIC,
        algorithm_identification=identification(algorithm),
        tracking_uid=tracking_uid(uid_key, label),
        tracking_id=label.name,
        anatomic_regions=[concept(label.region)] if label.region else None,
        display_color=colour(label),
    )


def identification(algorithm: Algorithm) -> AlgorithmIdentificationSequence:
    """The algorithm as SEG and SR name it."""
    return AlgorithmIdentificationSequence(
        name=algorithm.name,
        family=ARTIFICIAL_INTELLIGENCE,
        version=algorithm.version,
        source=MANUFACTURER,
    )


def _measures(header: Dataset, step: float) -> PixelMeasuresSequence:
    """Always with SpacingBetweenSlices: without it readers take the thickness for it."""
    return PixelMeasuresSequence(
        pixel_spacing=header.PixelSpacing,
        slice_thickness=header.SliceThickness,
        spacing_between_slices=step,
    )


def _put_background_last(dataset: Dataset) -> None:
    """Readers that count segments from 1 (OHIF 3.13 does) then give each its own label and colour.

    Only BINARY and FRACTIONAL ones have to be in the order of their numbers (PS3.3 C.8.20.2.4).
    """
    segments = sorted(dataset.SegmentSequence, key=lambda item: int(item.SegmentNumber) == 0)
    dataset.SegmentSequence = segments


def _settle_references(dataset: Dataset, references: Sequence[Reference]) -> None:
    """Write true classes, UIDs and frame numbers in place of the stand-ins."""
    known = {stand_in(reference): reference for reference in references}
    for frame in dataset.PerFrameFunctionalGroupsSequence:
        for derivation in frame.DerivationImageSequence:
            for item in derivation.SourceImageSequence:
                _settle(item, known)
    instances = list({reference.sop_instance_uid: reference for reference in references}.values())
    dataset.SourceImageSequence = [_instance(reference) for reference in instances]
    dataset.ReferencedSeriesSequence[0].ReferencedInstanceSequence = [
        _instance(reference) for reference in instances
    ]


def _settle(item: Dataset, known: dict[str, Reference]) -> None:
    reference = known.get(str(item.ReferencedSOPInstanceUID))
    if reference is None:  # highdicom shares one item between segments: already settled
        return
    item.ReferencedSOPClassUID = reference.sop_class_uid
    item.ReferencedSOPInstanceUID = reference.sop_instance_uid
    if reference.frame is not None:
        item.ReferencedFrameNumber = reference.frame


def _instance(reference: Reference) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID = reference.sop_class_uid
    item.ReferencedSOPInstanceUID = reference.sop_instance_uid
    return item


def _derive_dimension_uid(dataset: Dataset, uid_key: str, kind: SegKind) -> None:
    """highdicom makes a random one; a retry must write the same instance."""
    role = "dimension organization"
    uid = derived_uid(uid_key, role if kind == "BINARY" else f"{ROLES[kind]} {role}")
    dataset.DimensionOrganizationSequence[0].DimensionOrganizationUID = uid
    for item in dataset.DimensionIndexSequence:
        item.DimensionOrganizationUID = uid
