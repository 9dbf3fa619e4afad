"""Write a CT volume as a DICOM series in one zip: ``nifti_to_dicom.py IMAGE OUT.zip``.

Every UID derives from the image's name, so that the same image gives the same series.
"""

import sys
import uuid
import zipfile
from io import BytesIO
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian
from pydicom.valuerep import DSfloat


def write_series(image: sitk.Image, name: str, target: Path) -> int:
    """Slices of ``image`` (3-D, HU) as CT Image Storage; returns how many. Both NIfTI as
    SimpleITK reads it and DICOM speak of LPS mm, so nothing is flipped."""
    values = np.rint(sitk.GetArrayFromImage(image)).astype(np.int16)
    common = _common(image, name)
    partial = target.with_suffix(".part")
    with zipfile.ZipFile(partial, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for index, pixels in enumerate(values):
            archive.writestr(f"{index + 1:04d}.dcm", _slice(common, image, index, pixels))
    partial.replace(target)
    return len(values)


def _common(image: sitk.Image, name: str) -> Dataset:
    direction = np.array(image.GetDirection()).reshape(3, 3)
    x, y, z = image.GetSpacing()
    columns, rows, _ = image.GetSize()
    common = Dataset()
    common.SOPClassUID = CTImageStorage
    common.Modality = "CT"
    common.ImageType = ["DERIVED", "PRIMARY", "AXIAL"]
    common.PatientName, common.PatientID = "Demo^CT", "DEMO"
    common.PatientBirthDate = common.PatientSex = common.PatientPosition = ""
    common.StudyDate = common.StudyTime = common.StudyID = common.AccessionNumber = ""
    common.ReferringPhysicianName = common.Manufacturer = common.PositionReferenceIndicator = ""
    common.KVP = common.AcquisitionNumber = None
    common.SeriesNumber, common.SeriesDescription = 1, "CT from NIfTI"
    common.StudyInstanceUID = _uid(name, "study")
    common.SeriesInstanceUID = _uid(name, "series")
    common.FrameOfReferenceUID = _uid(name, "frame of reference")
    common.ImageOrientationPatient = _decimals([*direction[:, 0], *direction[:, 1]])
    common.PixelSpacing = _decimals([y, x])
    common.SliceThickness = _decimals([z])[0]
    common.Rows, common.Columns = rows, columns
    common.SamplesPerPixel, common.PhotometricInterpretation = 1, "MONOCHROME2"
    common.BitsAllocated = common.BitsStored = 16
    common.HighBit, common.PixelRepresentation = 15, 1
    common.RescaleSlope, common.RescaleIntercept, common.RescaleType = 1, 0, "HU"
    return common


def _slice(common: Dataset, image: sitk.Image, index: int, pixels: NDArray[np.int16]) -> bytes:
    dataset = Dataset()
    dataset.update(common)
    dataset.SOPInstanceUID = _uid(common.SeriesInstanceUID, str(index))
    dataset.InstanceNumber = index + 1
    position = image.TransformIndexToPhysicalPoint((0, 0, index))
    dataset.ImagePositionPatient = _decimals(position)
    dataset.PixelData = pixels.astype("<i2").tobytes()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    buffer = BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def _decimals(values: tuple[float, ...] | list[float]) -> list[DSfloat]:
    return [DSfloat(value, auto_format=True) for value in values]


def _uid(name: str, role: str) -> str:
    return f"2.25.{uuid.uuid5(uuid.NAMESPACE_OID, f'{name} {role}').int}"


def main() -> None:
    source, target = Path(sys.argv[1]), Path(sys.argv[2])
    count = write_series(sitk.ReadImage(str(source)), source.name, target)
    print(f"{count} slices written to {target}")


if __name__ == "__main__":
    main()
