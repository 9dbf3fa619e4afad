"""Small objects as this service writes them, for what moves them about."""

from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import (
    ComprehensiveSRStorage,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    SecondaryCaptureImageStorage,
    SegmentationStorage,
    generate_uid,
)

__all__ = ["capture", "report", "segmentation"]


def segmentation(path: Path, *, deflated: bool = False) -> Path:
    """What identifies a SEG, with a few pixels."""
    syntax = DeflatedExplicitVRLittleEndian if deflated else ExplicitVRLittleEndian
    dataset = _plain(SegmentationStorage, "SEG", syntax)
    _pixels(dataset, np.eye(8, dtype=np.uint8))
    return _saved(dataset, path)


def capture(path: Path) -> Path:
    dataset = _plain(SecondaryCaptureImageStorage, "OT", ExplicitVRLittleEndian)
    _pixels(dataset, np.arange(64, dtype=np.uint8).reshape(8, 8))
    return _saved(dataset, path)


def report(path: Path) -> Path:
    return _saved(_plain(ComprehensiveSRStorage, "SR", ExplicitVRLittleEndian), path)


def _plain(sop_class: str, modality: str, syntax: str) -> Dataset:
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.SOPClassUID, dataset.SOPInstanceUID = sop_class, generate_uid()
    dataset.file_meta.MediaStorageSOPClassUID = sop_class
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = generate_uid(), generate_uid()
    dataset.PatientName, dataset.PatientID = "Canary^Jane", "CANARY"
    dataset.Modality, dataset.StudyDate, dataset.StudyTime = modality, "20200101", "101010"
    return dataset


def _pixels(dataset: Dataset, plane: "np.ndarray[tuple[int, int], np.dtype[np.uint8]]") -> None:
    dataset.Rows, dataset.Columns = plane.shape
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 8, 8, 7
    dataset.PixelRepresentation = 0
    dataset.PixelData = plane.tobytes()


def _saved(dataset: Dataset, path: Path) -> Path:
    dataset.save_as(path, enforce_file_format=True)
    return path
