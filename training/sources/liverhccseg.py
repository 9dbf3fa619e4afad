"""LiverHccSeg (Gross et al. 2023): contrast-enhanced MR of 17 patients of TCGA-LIHC, liver and
tumours outlined by two radiologists.

Layout (``nifti_and_segms.zip`` of version 1.1, unpacked):
``TCGA-XX-XXXX/<date>/{pre,art,pv,del}.nii.gz``, the other phases registered to the arterial one
(``art_pre``, ``art_pv``, ``art_del``), and ``rater{1,2}_liver.nii.gz``,
``rater{1,2}_tumor{1,2,..}.nii.gz`` on the arterial grid. ``.nii``, ``tumour`` and a folder without
a date are accepted too.

The case is the arterial phase, which was outlined, and the first reader's label, as is the habit
with these data: there is no consensus. Three patients have no tumour mask. They were treated for a
tumour and are not healthy, so their label is ``merged``: nothing is said about tumours.
"""

import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np

from model.types import LIVER, TUMOUR

from .pair import check_place, read_named
from .record import Labelled, Record

LICENCE = "CC-BY-4.0"
READER = 1
_PATIENT = r"TCGA-\w{2}-\w{4}"


def find(folder: Path) -> list[Record]:
    """TCGA-XX-XXXX/<date>/art.nii.gz with rater1_liver.nii.gz and rater1_tumor*.nii.gz."""
    images = [file for file in sorted(folder.rglob("art.nii*")) if _patient(file)]
    return [_record(image, images) for image in images]


def _patient(file: Path) -> str | None:
    return next((part for part in reversed(file.parts) if re.fullmatch(_PATIENT, part)), None)


def _record(image: Path, images: Sequence[Path]) -> Record:
    person = str(_patient(image)).lower().replace("-", "_")
    several = sum(_patient(other) == _patient(image) for other in images) > 1
    name = f"{person}_{image.parent.name}" if several else person
    liver = _files(image.parent, rf"rater{READER}_liver")
    tumours = _files(image.parent, rf"rater{READER}_tumou?r_?\d*")
    return Record(
        f"mr/liverhccseg_{name}", "mr", person, "full" if tumours else "merged", LICENCE,
        "LiverHccSeg", (image, *liver, *tumours), partial(_load, image, liver, tumours),
    )  # fmt: skip


def _files(folder: Path, stem: str) -> tuple[Path, ...]:
    pattern = rf"{stem}\.nii(?:\.gz)?"
    return tuple(file for file in sorted(folder.iterdir()) if re.fullmatch(pattern, file.name))


def _load(image: Path, liver: Sequence[Path], tumours: Sequence[Path]) -> Labelled:
    volume = read_named(image, "mr")
    masks = [(path, LIVER) for path in liver or (image.parent / f"rater{READER}_liver.nii.gz",)]
    masks += [(path, TUMOUR) for path in tumours]
    label = np.zeros(volume.shape, np.uint8)
    for path, value in masks:
        mask = read_named(path, "mr")
        check_place(mask, volume, path.name)
        label[mask.array != 0] = value
    return volume, label
