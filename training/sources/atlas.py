"""ATLAS, a tumour and liver automatic segmentation (Quinton et al. 2023): 60 labelled contrast-
enhanced T1 MR scans, each of another patient with hepatocellular carcinoma.

Layout: ``imagesTr/imN.nii.gz`` and ``labelsTr/lbN.nii.gz``, N = 0..59 (the archive puts them into
``atlas-train-dataset-1.0.1/train``). Labels: 1 liver, 2 tumour.
"""

from functools import partial
from pathlib import Path

from .pair import load_pair
from .record import Record, numbered

LICENCE = "CC-BY-NC-SA-4.0"


def find(folder: Path) -> list[Record]:
    """imagesTr/imN.nii.gz and labelsTr/lbN.nii.gz, in any folder below."""
    images = numbered(folder, r"im(\d+)\.nii(?:\.gz)?")
    labels = numbered(folder, r"lb(\d+)\.nii(?:\.gz)?")
    return [_record(n, images.get(n), labels.get(n)) for n in images.keys() | labels.keys()]


def _record(number: int, image: Path | None, label: Path | None) -> Record:
    name = f"atlas_{number:02d}"
    return Record(
        f"mr/{name}", "mr", name, "full", LICENCE, "ATLAS",
        tuple(file for file in (image, label) if file), partial(load_pair, image, label, "mr"),
    )  # fmt: skip
