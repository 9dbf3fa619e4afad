"""Series for a viewer: one asymmetric phantom, as CT and MR, in every geometry."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from dicom_phantoms import ORIENTATIONS, Grid, Recipe, write_enhanced, write_series
from numpy.typing import NDArray
from pydicom import Dataset

__all__ = ["MORE", "QUICK", "Case", "files_of", "image_of", "phantom", "truth_of"]

ROOT = "1.2.826.0.1.3680043.10.1511"
LIVER_HU, TUMOUR_HU = 120, 180  # what the tiny model tells apart


@dataclass(frozen=True)
class Case:
    """A series. ``exact``: the voxels are the model's own, so that the mask is the phantom's."""

    name: str
    number: int
    grid: Grid
    modality: str = "CT"
    enhanced: bool = False
    labelmap: bool = False
    lines: bool = False
    exact: bool = True

    @property
    def study(self) -> str:
        return f"{ROOT}.{self.number}"


SMALL = (24, 64, 72)
FINE = (2.0, 2.0, 2.0)
QUICK = [Case("ct", 1, Grid(SMALL, FINE), lines=True)]
MORE = [
    Case("mr", 2, Grid(SMALL, FINE), modality="MR"),
    Case("labelmap", 3, Grid(SMALL, FINE), labelmap=True),
    Case("enhanced", 4, Grid(SMALL, FINE), enhanced=True),
    Case("oblique", 5, Grid(SMALL, FINE, orientation=ORIENTATIONS["oblique"])),
    Case("tilted", 6, Grid(SMALL, FINE, tilt=12.0), exact=False),
    Case("long", 7, Grid((300, 512, 512), (1.0, 0.75, 0.75)), exact=False),
]


def phantom(shape: tuple[int, int, int]) -> NDArray[np.int16]:
    """A body with a liver on its right that grows with z, and a tumour high in it: no two slices
    and no two mirror images are equal."""
    z, y, x = (np.indices(shape) + 0.5) / np.reshape(shape, (3, 1, 1, 1))
    image = np.full(shape, -1000, np.int16)
    image[((y - 0.5) / 0.45) ** 2 + ((x - 0.5) / 0.45) ** 2 < 1] = 20
    width = 0.12 + 0.12 * z
    liver = (((x - 0.32) / width) ** 2 + ((y - 0.45) / 0.25) ** 2 < 1) & (z > 0.15) & (z < 0.8)
    image[liver] = LIVER_HU
    tumour = ((x - 0.27) / 0.07) ** 2 + ((y - 0.38) / 0.09) ** 2 + ((z - 0.6) / 0.13) ** 2 < 1
    image[liver & tumour] = TUMOUR_HU
    return image


def truth_of(values: NDArray[np.int16]) -> NDArray[np.uint8]:
    return np.where(values == TUMOUR_HU, 2, np.where(values == LIVER_HU, 1, 0)).astype(np.uint8)


def files_of(case: Case, values: NDArray[np.int16], folder: Path) -> list[Path]:
    def name(dataset: Dataset, index: int) -> None:
        dataset.StudyInstanceUID, dataset.SeriesInstanceUID = case.study, f"{case.study}.1"
        dataset.SOPInstanceUID = image_of(case, index)[0]
        dataset.FrameOfReferenceUID = f"{case.study}.9"
        dataset.PatientID, dataset.SeriesDescription = f"P{case.number}", case.name

    intercept = -1024 if case.modality == "CT" else 0
    recipe = Recipe(case.modality, intercept=intercept, signed=case.modality == "MR", edit=name)
    if case.enhanced:
        return [write_enhanced(folder / "enhanced", [values], case.grid, recipe)]
    return write_series(folder / "in", values, case.grid, recipe)


def image_of(case: Case, index: int) -> tuple[str, int]:
    """What names slice ``index``."""
    return (f"{case.study}.1.1", index + 1) if case.enhanced else (f"{case.study}.1.{index + 1}", 1)
