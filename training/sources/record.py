"""One case of a download, not read yet."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from model.errors import ConfigError
from model.types import MaskArray, Modality
from model.volume import Volume

from ..sample import Quality

Labelled: TypeAlias = tuple[Volume, MaskArray]


@dataclass(frozen=True)
class Record:
    """A labelled volume of a public data set.

    ``name``: ``ct/<case>`` or ``mr/<case>``. ``patient``: the same for every case of one person,
    across sources where that is known. ``tumour``: whether there is one, where the label does not
    say. ``files``: everything that ``load`` reads. ``load`` gives the native volume and its label
    (0 background, 1 liver, 2 tumour) on the same grid, and raises ``InputError``. ``overlaps``:
    another data set that holds the same scan.
    """

    name: str
    modality: Modality
    patient: str
    quality: Quality
    licence: str
    source: str
    files: tuple[Path, ...]
    load: Callable[[], Labelled]
    tumour: bool | None = None
    overlaps: str | None = None


def numbered(folder: Path, pattern: str) -> dict[int, Path]:
    """Files below ``folder`` whose whole name matches; the first group is their number.

    Raises ``ConfigError`` when two files have one number.
    """
    found: dict[int, Path] = {}
    for file in sorted(folder.rglob("*")):
        match = re.fullmatch(pattern, file.name)
        if match is None or not file.is_file():
            continue
        number = int(match[1])
        if number in found:
            raise ConfigError(f"{file} and {found[number]} are one case; remove one")
        found[number] = file
    return found


def natural(path: Path) -> tuple[list[int], str]:
    """Sorts ``image_10`` after ``image_9``: by the numbers in a file's name."""
    return [int(digits) for digits in re.findall(r"\d+", path.stem)], path.name
