"""CHAOS (Kavur et al. 2021): healthy livers, 20 CT scans and 20 patients with T1-DUAL and T2-SPIR.

Layout: ``CT/N/DICOM_anon/*.dcm`` with ``CT/N/Ground/*.png``;
``MR/N/T1DUAL/DICOM_anon/{InPhase,OutPhase}/*.dcm`` with ``MR/N/T1DUAL/Ground/*.png``;
``MR/N/T2SPIR/DICOM_anon/*.dcm`` with ``MR/N/T2SPIR/Ground/*.png``. Image and mask of a slice have
the same rank when each folder is sorted by the numbers in its file names, whatever the direction
of the slices in space. Both phases of T1 are of one moment and share the masks.

The liver is 255 in a CT mask; in an MR mask it is grey 55-70 (kidneys and spleen: 110-135, 175-200,
240-255). CT and MR of one number are different people; T1-DUAL and T2-SPIR are the same.
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from model.errors import InputError
from model.types import MaskArray, Modality

from .dicom import read_stack
from .record import Labelled, Record, natural

LICENCE = "CC-BY-SA-4.0"
_LIVER: dict[Modality, tuple[int, int]] = {"ct": (255, 255), "mr": (55, 70)}
_OTHER = {"ct": (), "mr": ((110, 135), (175, 200), (240, 255))}
_SERIES = (
    ("T1DUAL", "DICOM_anon/InPhase", "t1_inphase"),
    ("T1DUAL", "DICOM_anon/OutPhase", "t1_outphase"),
    ("T2SPIR", "DICOM_anon", "t2spir"),
)


def find(folder: Path) -> list[Record]:
    """CT/N/DICOM_anon with Ground; MR/N/{T1DUAL,T2SPIR}/DICOM_anon with Ground."""
    records = []
    for place in sorted(folder.rglob("*")):
        if not (place.is_dir() and place.name.isdecimal()):
            continue
        if place.parent.name == "CT" and (place / "DICOM_anon").is_dir():
            records.append(_record("ct", "ct", place, place / "DICOM_anon", place / "Ground"))
        if place.parent.name == "MR":
            records += _mr_records(place)
    return records


def _mr_records(place: Path) -> list[Record]:
    return [
        _record("mr", kind, place, place / sequence / images, place / sequence / "Ground")
        for sequence, images, kind in _SERIES
        if (place / sequence / images).is_dir()
    ]


def _record(modality: Modality, kind: str, place: Path, images: Path, masks: Path) -> Record:
    number = int(place.name)
    slices = tuple(sorted(_visible(images, "*.dcm"), key=natural))
    ground = tuple(sorted(_visible(masks, "*.png"), key=natural))
    return Record(
        f"{modality}/chaos_{kind}_{number:02d}", modality, f"chaos_{modality}_{number:02d}",
        "healthy", LICENCE, "CHAOS", (*slices, *ground),
        partial(_load, modality, images, slices, ground), tumour=False,
    )  # fmt: skip


def _visible(folder: Path, pattern: str) -> list[Path]:
    return [file for file in folder.glob(pattern) if not file.name.startswith(".")]


def _load(
    modality: Modality, folder: Path, slices: Sequence[Path], ground: Sequence[Path]
) -> Labelled:
    if len(slices) != len(ground):
        raise InputError(
            f"{folder}: {len(slices)} images, {len(ground)} masks", code="label_mismatch"
        )
    volume, order = read_stack(slices, modality)
    label = np.zeros(volume.shape, np.uint8)
    for plane, k in zip(label, order, strict=True):
        plane[:] = _read_mask(ground[k], modality, plane.shape)
    return volume, label


def _read_mask(file: Path, modality: Modality, shape: tuple[int, ...]) -> MaskArray:
    try:
        with Image.open(file) as image:
            grey = np.asarray(image.convert("L"))
    except (UnidentifiedImageError, OSError) as error:
        raise InputError(f"{file} is not a readable PNG", code="broken_mask") from error
    if grey.shape != shape:
        raise InputError(
            f"{file}: {grey.shape} pixels, the image has {shape}", code="label_mismatch"
        )
    liver = _within(grey, _LIVER[modality])
    known = (grey == 0) | liver
    for span in _OTHER[modality]:
        known |= _within(grey, span)
    if not known.all():
        values = np.unique(grey[~known])[:5].tolist()
        raise InputError(f"{file}: grey values {values} are no organ's", code="label_values")
    return liver.astype(np.uint8)


def _within(grey: NDArray[np.uint8], span: tuple[int, int]) -> NDArray[np.bool_]:
    return (grey >= span[0]) & (grey <= span[1])
