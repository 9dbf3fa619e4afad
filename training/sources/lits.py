"""LiTS, the liver tumour segmentation benchmark (Bilic et al. 2023): 131 labelled CT scans.

Layout: ``volume-N.nii`` and ``segmentation-N.nii`` (also ``.nii.gz``), N = 0..130, in one folder or
spread over ``Training Batch 1`` and ``Training Batch 2``. Labels: 1 liver, 2 tumour.

Volumes 28 to 47 are the scans of 3D-IRCADb-1, in its order: they carry that data set's patients, so
that a split by patient holds across both. Some of their headers say 1 x 1 x 1 mm.
"""

from functools import partial
from pathlib import Path

from .pair import load_pair
from .record import Record, numbered

LICENCE = "CC-BY-NC-ND-4.0"
IRCADB = "3D-IRCADb-1"
_SHARED = range(28, 48)


def find(folder: Path) -> list[Record]:
    """volume-N.nii and segmentation-N.nii, in any folder below."""
    images = numbered(folder, r"volume-(\d+)\.nii(?:\.gz)?")
    labels = numbered(folder, r"segmentation-(\d+)\.nii(?:\.gz)?")
    return [
        scan(n, "lits", "LiTS", LICENCE, images.get(n), labels.get(n))
        for n in images.keys() | labels.keys()
    ]


def scan(
    number: int, prefix: str, source: str, licence: str, image: Path | None, label: Path | None
) -> Record:
    """The record of LiTS scan ``number``, from whichever download."""
    overlap = IRCADB if number in _SHARED else None
    patient = f"ircadb_{number - 27:02d}" if overlap else f"lits_{number:03d}"
    return Record(
        f"ct/{prefix}_{number:03d}", "ct", patient, "full", licence, source,
        tuple(file for file in (image, label) if file), partial(load_pair, image, label, "ct"),
        overlaps=overlap,
    )  # fmt: skip
