"""Studies of any size that cost nothing to make: one template, other UIDs and a few other pixels.

Nothing lies on a disk or whole in memory: a study comes as a multipart body, a zip or single files,
instance after instance.
"""

import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, MRImageStorage

Modality = Literal["ct", "mr"]

ROOT = "1.2.826.0.1.3680043.8.498.99"
NUMBER = 1_000_000  # of the template; every study's number has as many digits
AIR, BODY, LIVER, TUMOUR = -900, 20, 120, 180
NOISE = 16  # different values of a tissue: a zip of it is half its size, as of a real CT
MARKED = 64  # bytes of pixels that differ from study to study
BOUNDARY = "aqcf-load"
DEFLATED, FLAT = 8, 0x21  # the method of a zip, and its first day


@dataclass(frozen=True)
class Shape:
    """``side``: rows and columns. ``spacing``: mm between slices, and between pixels."""

    modality: Modality
    slices: int
    side: int
    spacing: tuple[float, float]

    @property
    def volume(self) -> tuple[int, int, int]:
        return self.slices, self.side, self.side


CT = Shape("ct", 500, 512, (0.8, 0.75))
"""262 MB."""
MR = tuple(Shape("mr", slices, 320, (3.0, 1.2)) for slices in (60, 80, 100))


@dataclass(frozen=True)
class _Plane:
    """The pixels of some slices behind the first ``MARKED`` bytes: plain, and as a zip has them."""

    start: bytes
    rest: bytes
    packed: bytes


class Template:
    """What all studies of a shape have in common."""

    def __init__(self, shape: Shape) -> None:
        self.shape = shape
        air, body, liver, tumour = (_plane(shape, kind) for kind in range(4))
        thirds = [air, liver, tumour, liver, body, air]
        each = -(-shape.slices // len(thirds))
        self._planes = [plane for plane in thirds for _ in range(each)][: shape.slices]
        self._heads = [_head(shape, index) for index in range(shape.slices)]

    def study(self, number: int) -> "Study":
        return Study(self, number)

    def instance(self, index: int, number: int) -> tuple[bytes, _Plane]:
        """What differs from study to study, up to the first pixels; and the pixels behind it."""
        plane = self._planes[index]
        head = self._heads[index].replace(b".%d." % NUMBER, b".%d." % (NUMBER + number))
        return head + struct.pack("<h", AIR - number % 100) + plane.start, plane

    @property
    def bytes(self) -> int:
        return sum(map(len, self._heads)) + 2 * self.shape.slices * self.shape.side**2


@dataclass(frozen=True)
class Study:
    """One series; see ``Template``. ``number``: from 1, its own of a run."""

    template: Template
    number: int

    @property
    def shape(self) -> Shape:
        return self.template.shape

    @property
    def bytes(self) -> int:
        return self.template.bytes

    @property
    def uid(self) -> str:
        return f"{ROOT}.{NUMBER + self.number}.1"

    def multipart(self) -> "Body":
        """A body of multipart/form-data."""
        start = (
            f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="files"; filename="i"\r\n'
            "Content-Type: application/dicom\r\n\r\n"
        ).encode()
        end = f"--{BOUNDARY}--\r\n".encode()
        size = self.bytes + self.shape.slices * (len(start) + 2) + len(end)

        def parts() -> Iterator[bytes]:
            for head, plane in self._instances():
                yield b"".join((start, head, plane.rest, b"\r\n"))
            yield end

        headers = {
            "Content-Type": f"multipart/form-data; boundary={BOUNDARY}",
            "Content-Length": str(size),
        }
        return Body(headers, parts)

    def zip(self) -> "Body":
        """A deflated zip, of a length that nobody says before."""
        return Body({"Content-Type": "application/zip"}, lambda: _zipped(self._instances()))

    def write(self, folder: Path) -> list[Path]:
        """A file per instance."""
        folder.mkdir()
        files = []
        for index, (head, plane) in enumerate(self._instances()):
            files.append(folder / f"{index:04d}")
            with files[-1].open("wb") as stream:
                stream.writelines((head, plane.rest))
        return files

    def _instances(self) -> Iterator[tuple[bytes, _Plane]]:
        for index in range(self.shape.slices):
            yield self.template.instance(index, self.number)


@dataclass(frozen=True)
class Body:
    """``parts``: the bytes, anew at every call."""

    headers: dict[str, str]
    parts: Callable[[], Iterator[bytes]]


def _plane(shape: Shape, kind: int) -> _Plane:
    """0: air, 1: body, 2: with a liver, 3: with a tumour in it."""
    side = shape.side
    values = np.full((side, side), AIR, np.int16)
    for value, low, high in ((BODY, 0.1, 0.9), (LIVER, 0.2, 0.6), (TUMOUR, 0.3, 0.4))[:kind]:
        values[int(low * side) : int(high * side), int(low * side) : int(high * side)] = value
    values += np.random.default_rng(kind).integers(0, NOISE, values.shape, np.int16)
    return _split(np.maximum(values, 0) if shape.modality == "mr" else values)


def _split(values: NDArray[np.int16]) -> _Plane:
    data = values.astype("<i2").tobytes()
    engine = zlib.compressobj(1, zlib.DEFLATED, -zlib.MAX_WBITS)
    rest = data[MARKED:]
    return _Plane(data[2:MARKED], rest, engine.compress(rest) + engine.flush())


def _head(shape: Shape, index: int) -> bytes:
    """A file (PS3.10) up to the value of its pixels."""
    dataset = _dataset(shape, index)
    size = 2 * shape.side**2
    dataset.PixelData = bytes(size)
    stream = BytesIO()
    dataset.save_as(stream, enforce_file_format=True)
    return stream.getvalue()[:-size]


def _dataset(shape: Shape, index: int) -> Dataset:
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SOPClassUID = CTImageStorage if shape.modality == "ct" else MRImageStorage
    dataset.SOPInstanceUID = f"{ROOT}.{NUMBER}.3.{1000 + index}"
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = f"{ROOT}.{NUMBER}.1", f"{ROOT}.{NUMBER}.2"
    dataset.FrameOfReferenceUID = f"{ROOT}.{NUMBER}.4"
    dataset.Modality, dataset.ImageType = shape.modality.upper(), ["ORIGINAL", "PRIMARY", "AXIAL"]
    dataset.PatientName, dataset.PatientID = "Load^Test", f"L.{NUMBER}."
    dataset.PatientBirthDate, dataset.PatientSex = "19010203", "O"
    dataset.StudyDate, dataset.StudyTime, dataset.StudyID = "20010101", "010203", ""
    dataset.AccessionNumber, dataset.ReferringPhysicianName = "", ""
    dataset.SeriesDescription, dataset.SeriesNumber = "portal venous", 1
    dataset.InstanceNumber, dataset.AcquisitionNumber = index + 1, 1
    _place(dataset, shape, index)
    if shape.modality == "ct":
        dataset.RescaleSlope, dataset.RescaleIntercept = 1, 0
    return dataset


def _place(dataset: Dataset, shape: Shape, index: int) -> None:
    between, pixel = shape.spacing
    dataset.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    dataset.ImagePositionPatient = [0, 0, round(index * between, 3)]
    dataset.PixelSpacing, dataset.SliceThickness = [pixel, pixel], between
    dataset.Rows = dataset.Columns = shape.side
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 16, 15
    dataset.PixelRepresentation = 1


def _zipped(instances: Iterator[tuple[bytes, _Plane]]) -> Iterator[bytes]:
    """Members as a zip has them (APPNOTE 4.3), without deflating the same pixels again."""
    directory, at = [], 0
    for count, (head, plane) in enumerate(instances):
        engine = zlib.compressobj(1, zlib.DEFLATED, -zlib.MAX_WBITS)
        packed = engine.compress(head) + engine.flush(zlib.Z_SYNC_FLUSH) + plane.packed
        name = b"%06d" % count
        checksum = zlib.crc32(plane.rest, zlib.crc32(head))
        sizes = (len(packed), len(head) + len(plane.rest), len(name), 0)
        common = (20, 0, DEFLATED, 0, FLAT, checksum, *sizes)
        directory.append(struct.pack("<4s6H3L5H2L", b"PK\1\2", 20, *common, 0, 0, 0, 0, at) + name)
        member = struct.pack("<4s5H3L2H", b"PK\3\4", *common) + name + packed
        at += len(member)
        yield member
    records = b"".join(directory)
    end = (0, 0, len(directory), len(directory), len(records), at, 0)
    yield records + struct.pack("<4s4H2LH", b"PK\5\6", *end)
