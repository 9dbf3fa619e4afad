"""3D-IRCADb-1 (Soler et al. 2010): 20 CT scans with masks of many organs.

Layout: ``3Dircadb1.N/PATIENT_DICOM/image_K`` and ``3Dircadb1.N/MASKS_DICOM/<organ>/image_K``,
N = 1..20; or the two archives ``PATIENT_DICOM.zip`` and ``MASKS_DICOM.zip`` in their place.
A mask belongs to the image of the same name. ``liver`` is the whole liver; each
``livertumor*`` is one or more tumours (15 of the 20 patients have any). Cysts and the folder
``tumor`` of number 7, whose liver has no tumour in the data set's own table, are no tumours here.

The scans are LiTS volumes 28 to 47 too.
"""

import re
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from zipfile import BadZipFile, ZipFile

import numpy as np

from model.errors import InputError
from model.types import LIVER, TUMOUR, MaskArray

from .dicom import read_pixels, read_stack
from .record import Labelled, Record, natural

LICENCE = "CC-BY-NC-ND-4.0"
_CASE = r"3Dircadb1\.(\d+)"
_IMAGE = r"image_\d+(?:\.dcm)?"
_TUMOUR = r"livertumou?rs?[\d_]*"
_IMAGES, _MASKS = "PATIENT_DICOM", "MASKS_DICOM"


def find(folder: Path) -> list[Record]:
    """3Dircadb1.N/PATIENT_DICOM and MASKS_DICOM, as folders or as .zip."""
    places = [folder, *sorted(folder.rglob("3Dircadb1.*"))]
    return [
        _record(int(match[1]), place)
        for place in places
        if (match := re.fullmatch(_CASE, place.name)) and _part(place, _IMAGES) is not None
    ]


def _record(number: int, place: Path) -> Record:
    name = f"ircadb_{number:02d}"
    parts = [part for part in (_part(place, _IMAGES), _part(place, _MASKS)) if part]
    files = [f for part in parts for f in ([part] if part.is_file() else sorted(part.rglob("*")))]
    return Record(
        f"ct/{name}", "ct", name, "full", LICENCE, "3D-IRCADb-1",
        tuple(f for f in files if f.is_file()), partial(_load, place),
    )  # fmt: skip


def _part(place: Path, name: str) -> Path | None:
    """The folder, else the archive."""
    return next((p for p in (place / name, place / f"{name}.zip") if p.exists()), None)


def _load(place: Path) -> Labelled:
    with ExitStack() as stack:
        images, masks = (stack.enter_context(_unpacked(place, n)) for n in (_IMAGES, _MASKS))
        files = _images(images)
        volume, order = read_stack(files, "ct")
        folders = {f.parent.name.lower(): f.parent for f in masks.rglob("*") if _is_image(f)}
        names = [files[k].name for k in order]
        return volume, _label(folders, names, volume.shape)


@contextmanager
def _unpacked(place: Path, name: str) -> Iterator[Path]:
    part = _part(place, name)
    if part is None:
        raise InputError(f"{place} has neither {name} nor {name}.zip", code="missing_file")
    if part.is_dir():
        yield part
        return
    with TemporaryDirectory(prefix="ircadb-") as folder:
        try:
            with ZipFile(part) as archive:
                wanted = [n for n in archive.namelist() if name == _IMAGES or _is_wanted(n)]
                archive.extractall(folder, wanted)
        except (BadZipFile, OSError) as error:
            raise InputError(f"{part} is not a whole archive", code="broken_archive") from error
        yield Path(folder)


def _is_wanted(member: str) -> bool:
    organ = Path(member).parent.name.lower()
    return organ == "liver" or re.fullmatch(_TUMOUR, organ) is not None


def _is_image(file: Path) -> bool:
    return re.fullmatch(_IMAGE, file.name) is not None and file.is_file()


def _images(folder: Path) -> list[Path]:
    return sorted((f for f in folder.rglob("*") if _is_image(f)), key=natural)


def _label(
    folders: dict[str, Path], names: Sequence[str], shape: tuple[int, int, int]
) -> MaskArray:
    if "liver" not in folders:
        raise InputError(f"no mask of the liver, only {sorted(folders)}", code="missing_file")
    label = np.zeros(shape, np.uint8)
    tumours = [path for organ, path in sorted(folders.items()) if re.fullmatch(_TUMOUR, organ)]
    for path, value in [(folders["liver"], LIVER), *((path, TUMOUR) for path in tumours)]:
        _paint(label, path, names, value)
    return label


def _paint(label: MaskArray, folder: Path, names: Sequence[str], value: int) -> None:
    """Where the masks are not 0, ``label`` becomes ``value``."""
    there = {file.name for file in _images(folder)}
    if there != set(names):
        odd = sorted(there ^ set(names))[:3]
        raise InputError(f"{folder.name}: masks and images differ, {odd}", code="label_mismatch")
    for plane, name in zip(label, names, strict=True):
        pixels = read_pixels(folder / name)[0]
        if pixels.shape != plane.shape:
            raise InputError(
                f"{folder.name}/{name}: {pixels.shape} pixels, the image has {plane.shape}",
                code="label_mismatch",
            )
        plane[pixels != 0] = value
