"""Medical Segmentation Decathlon, task 3 (Antonelli et al. 2022): the LiTS scans, repacked.

Layout: ``Task03_Liver/{imagesTr,labelsTr}/liver_N.nii.gz`` and ``dataset.json``. N is the number of
the LiTS volume, so a patient has one id in both. Labels: 1 liver, 2 tumour (``cancer``).
"""

import json
from pathlib import Path

from model.errors import ConfigError

from .lits import scan
from .record import Record, numbered

LICENCE = "CC-BY-SA-4.0"
_NAME = r"liver_(\d+)\.nii(?:\.gz)?"  # not the ._liver_N.nii.gz that its archive holds too


def find(folder: Path) -> list[Record]:
    """Task03_Liver: imagesTr/liver_N.nii.gz, labelsTr/liver_N.nii.gz, dataset.json."""
    task = folder / "Task03_Liver" if (folder / "Task03_Liver").is_dir() else folder
    _check_task(task / "dataset.json")
    images, labels = numbered(task / "imagesTr", _NAME), numbered(task / "labelsTr", _NAME)
    return [
        scan(n, "msd_liver", "MSD Task03", LICENCE, images.get(n), labels.get(n))
        for n in images.keys() | labels.keys()
    ]


def _check_task(index: Path) -> None:
    """Another task of the decathlon has other classes."""
    if not index.is_file():
        return
    try:
        labels = json.loads(index.read_text(encoding="utf-8"))["labels"]
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{index} is not the index of a decathlon task") from error
    if labels.get("1") != "liver" or labels.get("2") not in ("cancer", "tumour", "tumor"):
        raise ConfigError(f"{index}: labels {labels}; Task03_Liver has 1 liver, 2 cancer")
