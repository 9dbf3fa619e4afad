"""Which cases are to be rated, and in what order (section 4.1.2).

A random sample of held-out cases with a known tumour, balanced by modality and by lesion size.
The paper balances by the clarity of the lesion's boundary too; nothing here measures that, so it is
left to whoever looks through the sheet.
"""

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.random import Generator

from model.errors import ConfigError
from model.measure import lesion_labels
from model.types import MODALITIES, Modality

from .crossval import STUDY, read_study
from .data import Case, list_cases, read_case
from .run import CONFIG, read_config, unseen_cases

SIZES = ("small", "medium", "large")


@dataclass(frozen=True)
class Candidate:
    """A held-out case. ``lesion_ml``: the volume of its largest lesion."""

    case: str
    modality: Modality
    lesion_ml: float


def write_reading_list(
    source: Path, to: Path, *, count: int = 40, readers: Sequence[str] = ("R1", "R2"), seed: int = 0
) -> list[Candidate]:
    """Sample ``count`` held-out cases of a run's or a study's folder and write the sheet to fill.

    A row per reader and case in that reader's own random order; ``score`` and ``acceptable`` are
    empty, ``training.readers`` reads the file when they are filled. The same seed gives the same
    sheet. Raises ``ConfigError`` for a folder that is neither, and what ``draw`` raises.
    """
    if not readers or len(set(readers)) < len(readers):
        raise ConfigError(f"readers {', '.join(readers)!r}: name each reader once")
    sizes = draw(candidates(held_out(source)), count, seed)
    to.parent.mkdir(parents=True, exist_ok=True)
    with to.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(
            ["reader", "order", "case", "modality", "size", "lesion_ml", "score", "acceptable"]
        )
        for number, reader in enumerate(readers):
            shuffled = _shuffled(list(sizes), np.random.default_rng((seed, 1, number)))
            for order, item in enumerate(shuffled, 1):
                size, volume = sizes[item], round(item.lesion_ml, 2)
                writer.writerow([reader, order, item.case, item.modality, size, volume, "", ""])
    return list(sizes)


def held_out(source: Path) -> list[Case]:
    """The cases that a run has not seen; of a study all of them, each is held out in one fold."""
    if (source / STUDY).is_file():
        study = read_study(source)
        names = {name for fold in study.folds for name in fold}
        return [case for case in list_cases(study.config.data) if case.name in names]
    if (source / CONFIG).is_file():
        return unseen_cases(read_config(source))
    raise ConfigError(f"{source} is no run and no study: it holds neither {CONFIG} nor {STUDY}")


def candidates(cases: Sequence[Case]) -> list[Candidate]:
    """Those with a tumour in a label that knows tumours; reads their labels."""
    found = []
    for case in cases:
        if case.quality == "full":
            volume, label = read_case(case)
            largest = int(np.count_nonzero(lesion_labels(label) == 1))
            if largest:
                found.append(Candidate(case.name, case.modality, largest * volume.voxel_ml))
    return found


def draw(pool: Sequence[Candidate], count: int, seed: int) -> dict[Candidate, str]:
    """``count`` candidates with their size class, half of them CT and half MR (of an odd number one
    more CT).

    Within a modality the candidates are cut at the tertiles of ``lesion_ml``, and the classes give
    one case each in turn, so that their numbers differ by one at most unless one is used up.
    Raises ``ConfigError`` when a modality has too few candidates.
    """
    chosen: dict[Candidate, str] = {}
    for number, modality in enumerate(MODALITIES):
        own = sorted(
            (c for c in pool if c.modality == modality), key=lambda c: (c.lesion_ml, c.case)
        )
        wanted = (count + 1 - number) // 2
        if wanted > len(own):
            raise ConfigError(
                f"{count} cases need {wanted} {modality} cases with a known tumour; there are "
                f"{len(own)}"
            )
        chosen |= _balanced(own, wanted, np.random.default_rng((seed, 0, number)))
    return chosen


def _balanced(own: list[Candidate], wanted: int, rng: Generator) -> dict[Candidate, str]:
    """From the three classes in turn, which comes first is random."""
    cuts = [round(len(own) * part / len(SIZES)) for part in range(len(SIZES) + 1)]
    classes = {
        size: _shuffled(own[start:stop], rng)
        for size, start, stop in zip(SIZES, cuts[:-1], cuts[1:], strict=True)
    }
    turns = [SIZES[place] for place in rng.permutation(len(SIZES))]
    chosen: dict[Candidate, str] = {}
    while len(chosen) < wanted:
        for size in turns:
            if classes[size] and len(chosen) < wanted:
                chosen[classes[size].pop()] = size
    return chosen


def _shuffled(items: list[Candidate], rng: Generator) -> list[Candidate]:
    return [items[place] for place in rng.permutation(len(items))]
