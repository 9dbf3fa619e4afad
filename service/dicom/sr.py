"""Measurements as a TID 1500 report (Comprehensive 3D SR) that points at the SEG."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

import highdicom.sr as hd
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes as standard
from pydicom.uid import ExplicitVRLittleEndian

from model.measure import Lesion, Measurements
from model.spec import Label
from model.types import LIVER, TUMOUR, Modality

from . import codes
from .algorithm import described
from .quiet import quiet
from .sanitise import Sources, canonical_sources
from .seg import MANUFACTURER, MODEL_NAME, Algorithm, tracking_uid
from .series import Series
from .uids import derived_uid

Group: TypeAlias = (
    hd.MeasurementsAndQualitativeEvaluations | hd.VolumetricROIMeasurementsAndQualitativeEvaluations
)

SrRole: TypeAlias = Literal["sr", "sr labelmap"]

SERIES_NUMBERS: Final[dict[SrRole, int]] = {"sr": 9002, "sr labelmap": 9007}
MM3_PER_ML = 1000.0
DECIMALS = 3


MAX_LESIONS = 50  # a report of hundreds takes seconds to write and nobody reads it


def build_sr(
    series: Series,
    seg: Dataset,
    measurements: Measurements,
    labels: Sequence[Label],
    algorithm: Algorithm,
    uid_key: str,
    sources: Sources | None = None,
    role: SrRole = "sr",
) -> Dataset:
    """A report of the whole liver, each segment that holds a voxel, and each of the
    ``MAX_LESIONS`` largest lesions.

    ``seg``: what ``build_seg`` returned for the same ``uid_key``; it is the evidence. ``role``:
    tells reports about a BINARY and a LABELMAP apart. Lesions have their own tracking UIDs (the SEG
    holds them together in one segment). A liver of 0 ml is reported as a failed measurement, so
    that it cannot be read as a finding. The title is Oncology Measurement Report (CID 7021): OHIF
    takes what is named Imaging Measurement Report for lines on images.
    """
    sources = sources or canonical_sources(series, uid_key)
    author = _Author(seg, sources.headers[0].SeriesInstanceUID, algorithm, uid_key)
    with quiet():
        report = hd.MeasurementReport(
            observation_context=author_context(algorithm),
            procedure_reported=procedure(series.modality),
            imaging_measurements=author.groups(measurements, labels),
            title=codes.ONCOLOGY_REPORT,
        )
        return hd.Comprehensive3DSR(
            evidence=[seg],
            content=report[0],
            series_instance_uid=derived_uid(uid_key, f"{role} series"),
            series_number=SERIES_NUMBERS[role],
            sop_instance_uid=derived_uid(uid_key, f"{role} instance"),
            instance_number=1,
            manufacturer=MANUFACTURER,
            manufacturer_model_name=MODEL_NAME,
            software_versions=algorithm.version,
            device_serial_number=algorithm.name,
            is_complete=True,
            is_final=False,
            is_verified=False,
            transfer_syntax_uid=ExplicitVRLittleEndian,
            series_description=described("Liver measurements", algorithm),
        )


def lesion_tracking_uid(uid_key: str, number: int) -> str:
    """The tracking UID of a lesion, by its number in ``Measurements``."""
    return derived_uid(uid_key, f"lesion {number}")


def author_context(algorithm: Algorithm) -> hd.ObservationContext:
    """Who observed: this software, as a device."""
    device = hd.DeviceObserverIdentifyingAttributes(
        uid=derived_uid(f"{algorithm.name} {algorithm.version}", "device"),
        name=algorithm.name,
        manufacturer_name=MANUFACTURER,
        model_name=MODEL_NAME,
    )
    return hd.ObservationContext(
        observer_device_context=hd.ObserverContext(
            observer_type=standard.DCM.Device, observer_identifying_attributes=device
        )
    )


def procedure(modality: Modality) -> hd.CodedConcept:
    """How the source was made."""
    return codes.CT_PROCEDURE if modality == "ct" else codes.MR_PROCEDURE


@dataclass(frozen=True)
class _Author:
    """Writes measurement groups about one SEG."""

    seg: Dataset
    source_series_uid: str
    algorithm: Algorithm
    uid_key: str

    def groups(self, measurements: Measurements, labels: Sequence[Label]) -> list[Group]:
        volumes = {LIVER: measurements.liver_without_tumour_ml, TUMOUR: measurements.tumour_ml}
        hounsfield = measurements.intensity_unit == "HU"
        return [
            self.whole_liver(measurements.liver_ml),
            *(
                self.segment(label, volumes[label.value])
                for label in labels
                if volumes.get(label.value, 0.0) > 0
            ),
            *(self.lesion(lesion, hounsfield) for lesion in measurements.lesions[:MAX_LESIONS]),
        ]

    def whole_liver(self, volume_ml: float) -> Group:
        failed = None if volume_ml > 0 else standard.DCM.MeasurementFailure
        return hd.MeasurementsAndQualitativeEvaluations(
            tracking_identifier=_tracking(
                derived_uid(self.uid_key, "whole liver"), "Liver including tumour"
            ),
            finding_type=codes.LIVER,
            method=codes.ARTIFICIAL_INTELLIGENCE,
            algorithm_id=named_algorithm(self.algorithm),
            measurements=[_volume(volume_ml, failed)],
        )

    def segment(self, label: Label, volume_ml: float) -> Group:
        return hd.VolumetricROIMeasurementsAndQualitativeEvaluations(
            tracking_identifier=_tracking(tracking_uid(self.uid_key, label), label.name),
            referenced_segment=hd.ReferencedSegment(
                sop_class_uid=self.seg.SOPClassUID,
                sop_instance_uid=self.seg.SOPInstanceUID,
                segment_number=label.value,
                source_series=hd.SourceSeriesForSegmentation(self.source_series_uid),
            ),
            finding_type=codes.concept(label.type),
            finding_category=codes.concept(label.category),
            finding_sites=[hd.FindingSite(codes.concept(label.region))] if label.region else None,
            method=codes.ARTIFICIAL_INTELLIGENCE,
            algorithm_id=named_algorithm(self.algorithm),
            measurements=[_volume(volume_ml)],
        )

    def lesion(self, lesion: Lesion, hounsfield: bool) -> Group:
        measured = [_volume(lesion.volume_ml), long_axis(lesion.long_axis_mm)]
        if hounsfield:
            measured.append(_attenuation(lesion.intensity_mean))
        return hd.MeasurementsAndQualitativeEvaluations(
            tracking_identifier=_tracking(
                lesion_tracking_uid(self.uid_key, lesion.number), f"Lesion {lesion.number}"
            ),
            finding_type=codes.LESION,
            finding_sites=[hd.FindingSite(codes.LIVER)],
            method=codes.ARTIFICIAL_INTELLIGENCE,
            algorithm_id=named_algorithm(self.algorithm),
            measurements=measured,
        )


def _tracking(uid: str, identifier: str) -> hd.TrackingIdentifier:
    return hd.TrackingIdentifier(uid=uid, identifier=identifier)


def named_algorithm(algorithm: Algorithm) -> hd.AlgorithmIdentification:
    """The algorithm as a measurement group names it."""
    return hd.AlgorithmIdentification(name=algorithm.name, version=algorithm.version)


def _volume(volume_ml: float, qualifier: hd.CodedConcept | None = None) -> hd.Measurement:
    return hd.Measurement(
        name=codes.VOLUME,
        value=round(volume_ml * MM3_PER_ML, DECIMALS),
        unit=codes.CUBIC_MILLIMETRE,
        qualifier=qualifier,
    )


def long_axis(
    length_mm: float, drawn: Sequence[hd.CoordinatesForMeasurement] | None = None
) -> hd.Measurement:
    """A lesion's length, and where it is drawn."""
    return hd.Measurement(
        name=codes.LONG_AXIS,
        value=round(length_mm, DECIMALS),
        unit=codes.MILLIMETRE,
        referenced_coordinates=drawn,
    )


def _attenuation(mean_hu: float) -> hd.Measurement:
    return hd.Measurement(
        name=codes.ATTENUATION,
        value=round(mean_hu, DECIMALS),
        unit=codes.HOUNSFIELD,
        derivation=codes.MEAN,
    )
