"""Cases on disk, preprocessed once by the deployed code, and the unpaired batches (eq. 1)."""

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeAlias
from zipfile import BadZipFile

import numpy as np
import torch
from numpy.random import Generator
from numpy.typing import NDArray
from pydantic import BaseModel, ValidationError
from torch import Tensor

from model.errors import ConfigError, InputError
from model.nifti import read_nifti
from model.preprocess import prepare, resample_label
from model.spec import FixedIntensity, ModalitySpec
from model.types import MODALITIES, MaskArray, Modality, SpacingZYX
from model.volume import Volume

from .augment import Augment, Draw
from .config import DataConfig, TrainConfig
from .sample import Quality, Sample
from .synthetic import head_phantom, phantom

INDEX = "cases.json"
BORROWED_HU = FixedIntensity(lo=-160, hi=240)  # wide enough that fat is not air
TEST = "test"  # the role of cases that neither train nor validate
_CACHE_VERSION = 1  # raise when preprocessing gives other arrays
_UNREADABLE = (OSError, ValueError, KeyError, EOFError, BadZipFile)

Arrays: TypeAlias = tuple[NDArray[np.float16], MaskArray]


@dataclass(frozen=True)
class Case:
    """One labelled volume on disk. ``spacing_mm`` is set where the header has lost it;
    ``has_tumour`` also where a ``merged`` label cannot show it."""

    name: str
    modality: Modality
    patient: str
    quality: Quality
    licence: str
    role: str
    image: Path
    label: Path
    spacing_mm: SpacingZYX | None = None
    has_tumour: bool = False


@dataclass(frozen=True)
class Batch:
    """One CT and one MR draw: images ``(n, 1, z, y, x)``, labels ``(n, z, y, x)``."""

    images: dict[Modality, Tensor]
    labels: dict[Modality, Tensor]
    quality: dict[Modality, list[Quality]]
    cases: dict[Modality, list[str]]
    exchange: bool


def list_cases(data: DataConfig) -> list[Case]:
    """The cases of ``cases.json``.

    Raises ``ConfigError`` for a missing root or file, an entry that is not valid, and a case that
    the configuration names but the index does not.
    """
    index = data.root / INDEX
    if not index.is_file():
        raise ConfigError(f"{index} does not exist; data.root must hold {INDEX}")
    rows = json.loads(index.read_text(encoding="utf-8"))
    cases = [_case(data, _entry(row, index)) for row in rows]
    names = {case.name for case in cases}
    for name in (
        *data.validate_cases,
        *data.test_cases,
        *data.exclude,
        *data.weights,
        *data.spacings_mm,
    ):
        if name not in names:
            raise ConfigError(f"case {name!r} is not in {index}")
    return [case for case in cases if case.name not in data.exclude]


def split(cases: Sequence[Case], data: DataConfig) -> tuple[list[Case], list[Case]]:
    """Training and validation cases; no patient is in both, patients of test cases in neither.

    Only a case that ``may_be_tested`` validates.
    """
    tested = {c.patient for c in cases if c.role == TEST or c.name in data.test_cases}
    held = {case.patient for case in cases if case.name in data.validate_cases}
    train = [c for c in cases if c.patient not in held | tested]
    validate = [c for c in cases if c.patient in held - tested and may_be_tested(c)]
    for modality in MODALITIES:
        if not any(c.modality == modality for c in train):
            raise ConfigError(f"no {modality} case is left to train on")
    return train, validate


def may_be_tested(case: Case) -> bool:
    """Whether its geometry is known and its label is not another model's."""
    return case.quality != "pseudo" and case.spacing_mm is None


def read_case(case: Case) -> tuple[Volume, MaskArray]:
    """The native volume and its label on the same grid.

    Raises ``InputError`` (``label_mismatch``) when the grids differ or a label is not 0, 1, 2.
    """
    volume = read_nifti(case.image, case.modality)
    label = read_nifti(case.label, case.modality)
    values = np.unique(label.array)
    same_place = np.allclose(label.affine, volume.affine, atol=1e-2)
    if label.shape != volume.shape or not same_place or not np.isin(values, (0, 1, 2)).all():
        raise InputError(
            f"{case.name}: label {label.shape}, values {values[:5].tolist()}, does not fit the "
            f"image {volume.shape}",
            code="label_mismatch",
        )
    if case.spacing_mm is not None:
        volume = _respaced(volume, case.spacing_mm)
    return volume, label.array.astype(np.uint8)


def prepare_sample(
    name: str, volume: Volume, label: MaskArray, quality: Quality, spec: ModalitySpec
) -> Sample:
    """Preprocess by the deployed code."""
    image, mask = _preprocess(volume, label, spec)
    return Sample(name, volume.modality, quality, image, mask, spec.spacing_mm)


def load_samples(
    cases: Sequence[Case], config: TrainConfig, cache: Path, tell: Callable[[int, int], None]
) -> list[Sample]:
    """Preprocessed training samples, read from ``cache`` where they lie there already."""
    data = config.data
    lent = [case for case in cases if case.modality == "ct" and config.augment.borrow_ct]
    makers: list[Callable[[], Sample]] = [
        *(partial(_real_sample, case, config, cache) for case in cases),
        *(partial(_real_sample, case, config, cache, borrowed=True) for case in lent),
        *(
            partial(_made_sample, kind, m, n, config, cache)
            for kind, count in (("phantom", data.phantoms), ("head", data.heads))
            for m in MODALITIES
            for n in range(count)
        ),
    ]
    samples = []
    for make in makers:
        samples.append(make())
        tell(len(samples), len(makers))
    return samples


class Batches:
    """Batch number ``step``: a function of the seed and the step alone, so resuming is exact."""

    def __init__(self, samples: Sequence[Sample], config: TrainConfig, rank: int = 0) -> None:
        self._config, self._rank = config, rank
        own = [s for s in samples if not s.borrowed]
        self._samples = {m: [s for s in own if s.modality == m] for m in MODALITIES}
        self._borrowed = [s for s in samples if s.borrowed]
        self._augment = {m: Augment(config.augment, config.modalities[m], m) for m in MODALITIES}

    def __len__(self) -> int:
        return self._config.steps

    def __getitem__(self, step: int) -> Batch:
        draws = {m: self._draws(m, step) for m in MODALITIES}
        rng = np.random.default_rng((self._config.seed, step, 2))  # the same on every rank
        return Batch(
            images={m: _stack([d.image for d in ds])[:, None] for m, ds in draws.items()},
            labels={m: _stack([d.label for d in ds]) for m, ds in draws.items()},
            quality={m: [d.quality for d in ds] for m, ds in draws.items()},
            cases={m: [d.case for d in ds] for m, ds in draws.items()},
            exchange=bool(rng.random() >= self._config.exchange_dropout),
        )

    def _draws(self, modality: Modality, step: int) -> list[Draw]:
        number = MODALITIES.index(modality)
        first = self._rank * self._size  # the ranks' batches together are one process's large one
        seeds = [(self._config.seed, step, number, 0, first + i) for i in range(self._size)]
        return [self._draw(modality, np.random.default_rng(seed)) for seed in seeds]

    def _draw(self, modality: Modality, rng: Generator) -> Draw:
        borrowed = modality == "mr" and rng.random() < self._config.augment.borrow_ct
        pool = self._borrowed if borrowed else self._samples[modality]
        weights = np.array([s.weight for s in pool])
        sample = pool[rng.choice(len(pool), p=weights / weights.sum())]
        return self._augment[modality](sample, rng)

    @property
    def _size(self) -> int:
        return self._config.batch_size


def prefetch(batches: Batches, start: int, stop: int) -> Iterator[tuple[int, Batch]]:
    """Batches ``start`` to ``stop``, the next one made while the current one is used."""
    if start >= stop:
        return
    with ThreadPoolExecutor(1) as pool:
        ahead = pool.submit(batches.__getitem__, start)
        for step in range(start, stop):
            batch = ahead.result()
            if step + 1 < stop:
                ahead = pool.submit(batches.__getitem__, step + 1)
            yield step, batch


class _Entry(BaseModel):
    """One row of ``cases.json``; it may say more than is read here."""

    case: str
    modality: Modality
    patient: str
    labels: Quality
    licence: str
    role: str = "develop"
    tumour: bool | None = None  # where it is not known: what the label quality suggests


def _entry(row: dict[str, object], index: Path) -> _Entry:
    try:
        return _Entry.model_validate(row)
    except ValidationError as error:
        raise ConfigError(f"{index}, case {row.get('case')!r}: {error}") from error


def _case(data: DataConfig, entry: _Entry) -> Case:
    name = entry.case
    tumour = entry.labels in ("full", "merged") if entry.tumour is None else entry.tumour
    folder = data.root / name
    image, label = folder / "image.nii.gz", folder / "label.nii.gz"
    for file in (image, label):
        if not file.is_file():
            raise ConfigError(f"case {name!r}: {file} does not exist")
    return Case(
        name, entry.modality, entry.patient, entry.labels, entry.licence, entry.role,
        image, label, data.spacings_mm.get(name), tumour,
    )  # fmt: skip


def _respaced(volume: Volume, spacing_mm: SpacingZYX) -> Volume:
    affine = volume.affine.copy()
    affine[:3, :3] *= np.array(spacing_mm[::-1]) / np.array(volume.spacing_mm[::-1])
    return Volume(volume.array, affine, volume.modality)


def _preprocess(volume: Volume, label: MaskArray, spec: ModalitySpec) -> Arrays:
    prepared = prepare(volume, spec)
    return prepared.array.astype(np.float16), resample_label(label, volume.affine, prepared)


def _real_sample(case: Case, config: TrainConfig, cache: Path, *, borrowed: bool = False) -> Sample:
    modality: Modality = "mr" if borrowed else case.modality
    spec = config.modalities[modality]
    if borrowed:
        spec = spec.model_copy(update={"intensity": BORROWED_HU})
    stamps = [file.stat().st_mtime_ns for file in (case.image, case.label)]
    key = f"{spec.model_dump_json()}{case.spacing_mm}{stamps}"
    arrays = _cached(cache, case.name, key, lambda: _preprocess(*read_case(case), spec))
    weight = config.data.weights.get(case.name, 1.0)
    return Sample(case.name, modality, case.quality, *arrays, spec.spacing_mm, weight, borrowed)


def _made_sample(
    kind: str, modality: Modality, number: int, config: TrainConfig, cache: Path
) -> Sample:
    spec, name = config.modalities[modality], f"{modality}/{kind}_{number:03d}"
    rng = np.random.default_rng((config.seed + number, MODALITIES.index(modality)))
    make = phantom if kind == "phantom" else _head
    key = f"{spec.model_dump_json()}{config.seed}"
    arrays = _cached(cache, name, key, lambda: _preprocess(*make(modality, rng), spec))
    weight = config.data.phantom_weight if kind == "phantom" else config.data.head_weight
    return Sample(name, modality, "full", *arrays, spec.spacing_mm, weight)


def _head(modality: Modality, rng: Generator) -> tuple[Volume, MaskArray]:
    volume = head_phantom(rng, modality)
    return volume, np.zeros(volume.shape, np.uint8)


def _cached(cache: Path, name: str, key: str, make: Callable[[], Arrays]) -> Arrays:
    """What ``make`` gives, kept on disk under ``name`` and ``key``; a damaged file is made anew."""
    digest = hashlib.sha256(f"{_CACHE_VERSION}{key}".encode()).hexdigest()[:16]
    file = cache / f"{name.replace('/', '_')}-{digest}.npz"
    if file.is_file():
        try:
            with file.open("rb") as stream, np.load(stream, allow_pickle=False) as kept:
                return kept["image"], kept["label"]
        except _UNREADABLE:
            file.unlink()
    image, label = make()
    cache.mkdir(parents=True, exist_ok=True)
    partial_file = file.with_suffix(f".{os.getpid()}.partial.npz")
    np.savez(partial_file, image=image, label=label)
    partial_file.replace(file)
    return image, label


def _stack(arrays: Sequence[NDArray[np.generic]]) -> Tensor:
    return torch.from_numpy(np.stack(arrays))
