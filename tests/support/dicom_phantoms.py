"""Synthetic DICOM series for tests: any orientation, order, syntax and defect."""

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom import dcmwrite
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian

CLASSES = {"CT": "1.2.840.10008.5.1.4.1.1.2", "MR": "1.2.840.10008.5.1.4.1.1.4"}
ENHANCED = {"CT": "1.2.840.10008.5.1.4.1.1.2.1", "MR": "1.2.840.10008.5.1.4.1.1.4.1"}
ROOT = "1.2.826.0.1.3680043.10.1510"
AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)

Edit = Callable[[Dataset, int], None]


S = float(np.sqrt(0.5))
ORIENTATIONS = {
    "axial": AXIAL,
    "axial, seen from above": (-1, 0, 0, 0, 1, 0),
    "axial, rows flipped": (1, 0, 0, 0, -1, 0),
    "axial, turned": (0, 1, 0, -1, 0, 0),
    "coronal": (1, 0, 0, 0, 0, -1),
    "sagittal": (0, 1, 0, 0, 0, -1),
    "oblique": (S, S, 0, 0, 0, -1),
    "double oblique": (0.8, 0.36, 0.48, -0.6, 0.48, 0.64),
}


@dataclass(frozen=True)
class Grid:
    """Where a phantom's voxels are. ``spacing``: (z, y, x) mm, z along the normal; ``centre``: LPS
    mm; ``tilt``: degrees by which the stack leans along the columns."""

    shape: tuple[int, int, int] = (8, 40, 48)
    spacing: tuple[float, float, float] = (5.0, 1.5, 1.0)
    orientation: tuple[float, ...] = AXIAL
    centre: tuple[float, float, float] = (0.0, 0.0, 0.0)
    tilt: float = 0.0

    @property
    def affine(self) -> NDArray[np.float64]:
        """``(x, y, z, 1)`` to LPS mm."""
        row, column = np.array(self.orientation[:3]), np.array(self.orientation[3:])
        z, y, x = self.spacing
        affine = np.eye(4)
        step = np.cross(row, column) + np.tan(np.radians(self.tilt)) * column
        affine[:3, :3] = np.stack([row * x, column * y, step * z], axis=1)
        middle = (np.array(self.shape[::-1]) - 1) / 2
        affine[:3, 3] = np.array(self.centre) - affine[:3, :3] @ middle
        return affine

    def world(self, positions: Sequence[float] | None = None) -> NDArray[np.float64]:
        """LPS mm of every voxel, ``(z, y, x, 3)``; ``positions`` as ``Recipe`` has them."""
        z, y, x = np.indices(self.shape).astype(np.float64)
        if positions is not None:
            z = np.broadcast_to(np.reshape(positions, (-1, 1, 1)) / self.spacing[0], z.shape)
        points = np.stack([x, y, z, np.ones_like(x)], axis=-1) @ self.affine.T
        return points[..., :3]


def body(grid: Grid) -> NDArray[np.int16]:
    """HU of an asymmetric object at a fixed place in the patient: a liver (100) that is wide to
    the patient's right, a tumour (40) in it, soft tissue (0) around."""
    left, posterior, superior = np.moveaxis(grid.world(), -1, 0)
    liver = ((left + 6) / 14) ** 2 + ((posterior + 2) / 10) ** 2 + ((superior - 3) / 12) ** 2 < 1
    liver |= (abs(left + 12) < 5) & (abs(posterior - 4) < 6) & (abs(superior + 2) < 7)
    tumour = (left + 9) ** 2 + (posterior - 1) ** 2 + (superior - 4) ** 2 < 20
    return np.where(liver & tumour, 40, np.where(liver, 100, 0)).astype(np.int16)


def labels(values: NDArray[np.generic]) -> NDArray[np.uint8]:
    """The mask that ``body`` stands for."""
    return np.where(values == 40, 2, np.where(values == 100, 1, 0)).astype(np.uint8)


@dataclass(frozen=True)
class Recipe:
    """How a series is written. ``positions``: mm along the normal instead of equidistant ones.
    ``edit``: changes each slice's data set before it is written."""

    modality: str = "CT"
    series: int = 1
    intercept: int = -1024
    slope: float = 1.0
    signed: bool = False
    syntax: str = ExplicitVRLittleEndian
    descending: bool = False
    positions: Sequence[float] | None = None
    edit: Edit | None = None
    skip: frozenset[int] = frozenset()
    prefix: str = "IM"


def write_series(
    folder: Path, values: NDArray[np.generic], grid: Grid, recipe: Recipe = Recipe()
) -> list[Path]:
    """One file per slice of ``values`` (HU or signal, ``(z, y, x)``)."""
    folder.mkdir(parents=True, exist_ok=True)
    order = range(len(values))
    paths = []
    for number, index in enumerate(reversed(order) if recipe.descending else order, start=1):
        if index in recipe.skip:
            continue
        dataset = slice_dataset(values, grid, recipe, index)
        dataset.InstanceNumber = number
        if recipe.edit:
            recipe.edit(dataset, index)
        path = folder / f"{recipe.prefix}{recipe.series}_{number:04d}"
        write(dataset, path, recipe.syntax)
        paths.append(path)
    return paths


def slice_dataset(values: NDArray[np.generic], grid: Grid, recipe: Recipe, index: int) -> Dataset:
    dataset = common(grid, recipe)
    dataset.SOPClassUID = CLASSES[recipe.modality]
    dataset.SOPInstanceUID = f"{ROOT}.{recipe.series}.{index + 1}"
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    dataset.ImagePositionPatient = position(grid, recipe, index)
    dataset.ImageOrientationPatient = [float(f"{v:.12g}") for v in grid.orientation]
    dataset.PixelSpacing = [grid.spacing[1], grid.spacing[2]]
    dataset.SliceThickness = grid.spacing[0]
    dataset.RescaleSlope, dataset.RescaleIntercept = recipe.slope, recipe.intercept
    set_pixels(dataset, stored(values[index], recipe), recipe)
    return dataset


def common(grid: Grid, recipe: Recipe) -> Dataset:
    dataset = Dataset()
    dataset.SpecificCharacterSet = "ISO_IR 100"
    dataset.Modality = recipe.modality
    dataset.PatientName, dataset.PatientID = "Canary^Test", "CANARY-1"
    dataset.PatientBirthDate, dataset.PatientSex = "19700101", "F"
    dataset.StudyDate, dataset.StudyTime = "20200101", "120000"
    dataset.StudyID, dataset.AccessionNumber = "1", "A1"
    dataset.ReferringPhysicianName = "Doctor^A"
    dataset.StudyInstanceUID = f"{ROOT}.0"
    dataset.SeriesInstanceUID = f"{ROOT}.{recipe.series}"
    dataset.SeriesNumber = recipe.series
    dataset.SeriesDescription = "phantom"
    dataset.FrameOfReferenceUID = f"{ROOT}.0.9"
    dataset.Manufacturer = "Phantom"
    dataset.Rows, dataset.Columns = grid.shape[1], grid.shape[2]
    return dataset


def position(grid: Grid, recipe: Recipe, index: int) -> list[float]:
    affine = grid.affine
    step = affine[:3, 2]
    along = index if recipe.positions is None else recipe.positions[index] / grid.spacing[0]
    return [float(f"{v:.10g}") for v in affine[:3, 3] + step * along]


def stored(values: NDArray[np.generic], recipe: Recipe) -> NDArray[np.integer]:
    kind = np.int16 if recipe.signed else np.uint16
    return np.rint((values.astype(float) - recipe.intercept) / recipe.slope).astype(kind)


def set_pixels(dataset: Dataset, pixels: NDArray[np.integer], recipe: Recipe) -> None:
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.BitsAllocated = dataset.BitsStored = 16
    dataset.HighBit = 15
    dataset.PixelRepresentation = int(recipe.signed)
    if UID(recipe.syntax).is_little_endian:
        dataset.PixelData = pixels.astype(pixels.dtype.newbyteorder("<")).tobytes()
    else:
        dataset.PixelData = pixels.astype(pixels.dtype.newbyteorder(">")).tobytes()
    dataset["PixelData"].VR = "OW"


def write(dataset: Dataset, path: Path, syntax: str = ExplicitVRLittleEndian) -> None:
    """With preamble and file meta, in a native syntax (deflated too) or compressed (RLE...)."""
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    dataset.file_meta.TransferSyntaxUID = UID(syntax)
    if UID(syntax).is_encapsulated:
        dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        dataset.compress(UID(syntax), generate_instance_uid=False)
    dcmwrite(path, dataset, enforce_file_format=True)


def without_meta(path: Path) -> None:
    """Cut the preamble and the file meta group, as some archives store files."""
    data = path.read_bytes()
    length = int.from_bytes(data[140:144], "little")
    path.write_bytes(data[144 + length :])


def write_enhanced(
    path: Path,
    stacks: Sequence[NDArray[np.generic]],
    grid: Grid,
    recipe: Recipe = Recipe(modality="MR", intercept=0),
    edit_frame: Callable[[Dataset, int, int], None] | None = None,
) -> Path:
    """One enhanced multi-frame instance; each of ``stacks`` is a temporal position, frames
    interleaved position by position."""
    dataset = common(grid, recipe)
    dataset.SOPClassUID = ENHANCED[recipe.modality]
    dataset.SOPInstanceUID = f"{ROOT}.{recipe.series}.1"
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "M", "NONE"]
    dataset.InstanceNumber = 1
    frames, items = [], []
    for index in range(grid.shape[0]):
        for stack, values in enumerate(stacks):
            item = frame_item(grid, recipe, stack, index)
            if edit_frame:
                edit_frame(item, stack, index)
            items.append(item)
            frames.append(stored(values[index], recipe))
    dataset.NumberOfFrames = len(frames)
    shared = Dataset()
    shared.PlaneOrientationSequence = [Dataset()]
    shared.PlaneOrientationSequence[0].ImageOrientationPatient = list(grid.orientation)
    shared.PixelMeasuresSequence = [Dataset()]
    shared.PixelMeasuresSequence[0].PixelSpacing = [grid.spacing[1], grid.spacing[2]]
    shared.PixelMeasuresSequence[0].SliceThickness = grid.spacing[0]
    dataset.SharedFunctionalGroupsSequence = [shared]
    dataset.PerFrameFunctionalGroupsSequence = items
    set_pixels(dataset, np.stack(frames), recipe)
    if recipe.edit:
        recipe.edit(dataset, 0)
    write(dataset, path, recipe.syntax)
    return path


def frame_item(grid: Grid, recipe: Recipe, stack: int, index: int) -> Dataset:
    item = Dataset()
    item.FrameContentSequence = [Dataset()]
    item.FrameContentSequence[0].StackID = "1"
    item.FrameContentSequence[0].InStackPositionNumber = index + 1
    item.FrameContentSequence[0].TemporalPositionIndex = stack + 1
    item.FrameContentSequence[0].DimensionIndexValues = [stack + 1, index + 1]
    item.PlanePositionSequence = [Dataset()]
    item.PlanePositionSequence[0].ImagePositionPatient = position(grid, recipe, index)
    item.PixelValueTransformationSequence = [Dataset()]
    transformation = item.PixelValueTransformationSequence[0]
    transformation.RescaleSlope, transformation.RescaleIntercept = recipe.slope, recipe.intercept
    transformation.RescaleType = "US"
    return item


def deflate_bomb(path: Path, megabytes: int) -> Path:
    """A deflated data set of zeros: tiny on disk, huge when inflated."""
    dataset = Dataset()
    dataset.SOPClassUID, dataset.SOPInstanceUID = CLASSES["CT"], f"{ROOT}.1.1"
    write(dataset, path, "1.2.840.10008.1.2.1.99")
    head = path.read_bytes()
    meta = head[: 144 + int.from_bytes(head[140:144], "little")]
    engine = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    with path.open("wb") as stream:
        stream.write(meta)
        for _ in range(megabytes):
            stream.write(engine.compress(bytes(2**20)))
        stream.write(engine.flush())
    return path
