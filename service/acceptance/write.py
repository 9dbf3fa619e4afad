"""Phantoms as DICOM files: CT and MR slices, enhanced CT. Everything in them is made up here."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

import numpy as np
from pydicom import dcmwrite
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import (
    UID,
    CTImageStorage,
    EnhancedCTImageStorage,
    ExplicitVRLittleEndian,
    MRImageStorage,
)

from ..dicom.codes import ABDOMEN
from ..dicom.quiet import quiet
from ..dicom.uids import derived_uid
from ..phantoms import DEVICE, PATIENT_ID
from .phantoms import Phantom

PATIENT_NAME: Final = "AQCF^ACCEPTANCE"
WARNING: Final = "AQCF ACCEPTANCE TEST, NO PATIENT"
INTERCEPT: Final = {"ct": -1024, "mr": 0}
PLANES: Final = {"ct": CTImageStorage, "mr": MRImageStorage}


@dataclass(frozen=True)
class Run:
    """One acceptance test. All UIDs derive from ``key``; ``at`` is local time with its zone."""

    key: str
    at: datetime

    def uid(self, role: str) -> str:
        return derived_uid(self.key, f"acceptance {role}")


@dataclass(frozen=True)
class Source:
    """One slice as it was written: ``frame`` counts from 1 in a multi-frame image."""

    instance: str
    frame: int | None
    position: tuple[float, float, float]


@dataclass(frozen=True, eq=False)
class Written:
    """A phantom on disk. ``sources``: in the order of the stack's slices."""

    phantom: Phantom
    files: tuple[Path, ...]
    study: str
    series: str
    frame_of_reference: str
    sources: tuple[Source, ...]


def write(phantom: Phantom, run: Run, number: int, folder: Path) -> Written:
    """Write the phantom into ``folder``, which is made; ``number`` is its SeriesNumber."""
    folder.mkdir(parents=True)
    header = _header(phantom, run, number)
    made = _multi_frame if phantom.kind == "multi-frame" else _slices
    files: list[Path] = []
    sources: list[Source] = []
    with quiet():
        for dataset, members in made(phantom, run, header):
            path = folder / f"{len(files) + 1:04d}.dcm"
            _save(dataset, path, phantom.syntax)
            files.append(path)
            sources += members
    return Written(
        phantom,
        tuple(files),
        str(header.StudyInstanceUID),
        str(header.SeriesInstanceUID),
        str(header.FrameOfReferenceUID),
        tuple(sources),
    )


def _header(phantom: Phantom, run: Run, number: int) -> Dataset:
    """Patient, study, series, equipment (PS3.3 C.7)."""
    header = Dataset()
    header.SpecificCharacterSet = "ISO_IR 100"
    header.PatientName, header.PatientID = PATIENT_NAME, PATIENT_ID
    header.PatientBirthDate, header.PatientSex = "", "O"
    header.PatientComments = WARNING
    header.StudyInstanceUID = run.uid(f"study {phantom.modality}")
    header.StudyID, header.AccessionNumber, header.ReferringPhysicianName = "ACCEPTANCE", "", ""
    header.StudyDescription = WARNING
    header.StudyDate = header.SeriesDate = header.ContentDate = f"{run.at:%Y%m%d}"
    header.StudyTime = header.SeriesTime = header.ContentTime = f"{run.at:%H%M%S}"
    header.Modality = phantom.modality.upper()
    header.SeriesInstanceUID = run.uid(f"series {phantom.name}")
    header.SeriesNumber, header.AcquisitionNumber = number, 1
    header.SeriesDescription = f"AQCF ACCEPTANCE {phantom.name}"
    header.ProtocolName = "AQCF ACCEPTANCE"
    header.BodyPartExamined, header.PatientPosition = "ABDOMEN", phantom.position
    header.FrameOfReferenceUID = run.uid(f"frame of reference {phantom.name}")
    header.PositionReferenceIndicator = ""
    header.Manufacturer, header.ManufacturerModelName = "AQCF acceptance", DEVICE
    header.ImageComments = WARNING
    header.BurnedInAnnotation = "NO"
    return header


def _slices(
    phantom: Phantom, run: Run, header: Dataset
) -> Iterator[tuple[Dataset, tuple[Source, ...]]]:
    stack, values = phantom.stack, phantom.scene.values
    count = len(values)
    for index, position in enumerate(stack.positions):
        dataset = _copy(header)
        dataset.SOPClassUID = PLANES[phantom.modality]
        dataset.SOPInstanceUID = run.uid(f"image {phantom.name} {index}")
        dataset.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL" if phantom.modality == "ct" else "M"]
        dataset.InstanceNumber = count - index if phantom.descending else index + 1
        dataset.ImagePositionPatient = _decimals(position)
        dataset.ImageOrientationPatient = _decimals(stack.orientation)
        dataset.PixelSpacing = _decimals(stack.spacing_mm[1:])
        dataset.SliceThickness = stack.spacing_mm[0]
        _add_technique(dataset, phantom)
        _add_pixels(dataset, values[index : index + 1], phantom)
        yield dataset, (Source(str(dataset.SOPInstanceUID), None, position),)


def _multi_frame(
    phantom: Phantom, run: Run, header: Dataset
) -> Iterator[tuple[Dataset, tuple[Source, ...]]]:
    """Enhanced CT (PS3.3 A.38.1), one stack; derived, since original frames tell of an exposure."""
    stack = phantom.stack
    dataset = _copy(header)
    dataset.SOPClassUID = EnhancedCTImageStorage
    dataset.SOPInstanceUID = run.uid(f"image {phantom.name}")
    dataset.ImageType = ["DERIVED", "PRIMARY", "VOLUME", "NONE"]
    dataset.InstanceNumber = 1
    dataset.PixelPresentation, dataset.VolumetricProperties = "MONOCHROME", "VOLUME"
    dataset.VolumeBasedCalculationTechnique = "NONE"
    dataset.ContentQualification, dataset.LossyImageCompression = "RESEARCH", "00"
    dataset.PresentationLUTShape = "IDENTITY"
    dataset.AcquisitionDateTime = f"{run.at:%Y%m%d%H%M%S}"
    dataset.DeviceSerialNumber, dataset.SoftwareVersions = "1", "1"
    dataset.AcquisitionContextSequence = []
    _add_dimensions(dataset, run.uid(f"dimensions {phantom.name}"))
    dataset.NumberOfFrames = len(stack.positions)
    dataset.SharedFunctionalGroupsSequence = [_shared(phantom, run)]
    dataset.PerFrameFunctionalGroupsSequence = [
        _frame(number, position) for number, position in enumerate(stack.positions, start=1)
    ]
    _add_pixels(dataset, phantom.scene.values, phantom)
    del dataset.RescaleIntercept, dataset.RescaleSlope, dataset.RescaleType
    uid = str(dataset.SOPInstanceUID)
    yield dataset, tuple(Source(uid, i, p) for i, p in enumerate(stack.positions, start=1))


def _add_technique(dataset: Dataset, phantom: Phantom) -> None:
    """Of the type 1 and 2 attributes that archives look for, those without a made-up dose."""
    if phantom.modality == "ct":
        dataset.KVP = ""
        dataset.GantryDetectorTilt = phantom.stack.tilt
        return
    dataset.ScanningSequence, dataset.SequenceVariant = "RM", "NONE"
    dataset.ScanOptions, dataset.MRAcquisitionType = "", "2D"
    dataset.RepetitionTime, dataset.EchoTime = "", ""
    dataset.EchoTrainLength = ""


def _add_pixels(dataset: Dataset, planes: "np.ndarray[tuple[int, ...], np.dtype[np.int16]]",
                phantom: Phantom) -> None:  # fmt: skip
    intercept = INTERCEPT[phantom.modality]
    _, dataset.Rows, dataset.Columns = phantom.stack.shape
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 16, 15
    dataset.PixelRepresentation = 0
    dataset.WindowCenter, dataset.WindowWidth = 100, 240
    if phantom.modality == "ct":
        dataset.RescaleIntercept, dataset.RescaleSlope, dataset.RescaleType = intercept, 1, "HU"
    dataset.PixelData = (planes.astype(np.int32) - intercept).astype("<u2").tobytes()
    dataset["PixelData"].VR = "OW"


def _add_dimensions(dataset: Dataset, uid: str) -> None:
    organisation, index = Dataset(), Dataset()
    organisation.DimensionOrganizationUID = index.DimensionOrganizationUID = uid
    index.DimensionIndexPointer = 0x00209057  # InStackPositionNumber
    index.FunctionalGroupPointer = 0x00209111  # FrameContentSequence
    dataset.DimensionOrganizationSequence = [organisation]
    dataset.DimensionIndexSequence = [index]


def _shared(phantom: Phantom, run: Run) -> Dataset:
    stack, shared = phantom.stack, Dataset()
    anatomy, event = Dataset(), Dataset()
    measures, orientation, transformation, kind = Dataset(), Dataset(), Dataset(), Dataset()
    measures.PixelSpacing = _decimals(stack.spacing_mm[1:])
    measures.SliceThickness = measures.SpacingBetweenSlices = stack.spacing_mm[0]
    orientation.ImageOrientationPatient = _decimals(stack.orientation)
    transformation.RescaleIntercept, transformation.RescaleSlope = INTERCEPT["ct"], 1
    transformation.RescaleType = "HU"
    kind.FrameType = ["DERIVED", "PRIMARY", "VOLUME", "NONE"]
    kind.PixelPresentation, kind.VolumetricProperties = "MONOCHROME", "VOLUME"
    kind.VolumeBasedCalculationTechnique = "NONE"
    shared.PixelMeasuresSequence = [measures]
    shared.PlaneOrientationSequence = [orientation]
    shared.PixelValueTransformationSequence = [transformation]
    shared.CTImageFrameTypeSequence = [kind]
    anatomy.FrameLaterality = "U"
    anatomy.AnatomicRegionSequence = [ABDOMEN]
    event.IrradiationEventUID = run.uid(f"irradiation event {phantom.name}")
    shared.FrameAnatomySequence = [anatomy]
    shared.IrradiationEventIdentificationSequence = [event]
    return shared


def _frame(number: int, position: tuple[float, float, float]) -> Dataset:
    frame, content, place = Dataset(), Dataset(), Dataset()
    content.StackID, content.InStackPositionNumber = "1", number
    content.DimensionIndexValues = [number]
    content.FrameAcquisitionNumber = 1
    place.ImagePositionPatient = _decimals(position)
    frame.FrameContentSequence, frame.PlanePositionSequence = [content], [place]
    return frame


def _copy(header: Dataset) -> Dataset:
    dataset = Dataset()
    dataset.update(header)
    return dataset


def _decimals(values: tuple[float, ...]) -> list[str]:
    """In 16 characters at most (PS3.5 6.2, DS)."""
    return [f"{value:.8g}" for value in values]


def _save(dataset: Dataset, path: Path, syntax: str) -> None:
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    if syntax != ExplicitVRLittleEndian:
        dataset.compress(UID(syntax), generate_instance_uid=False)
    dcmwrite(path, dataset, enforce_file_format=True)
