"""Cases on disk, preprocessed once by the deployed code, and the unpaired batches (eq. 1)."""

import hashlib
import json
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from model.errors import ConfigError, InputError
from model.nifti import read_nifti
from model.preprocess import prepare, resample_label
from model.spec import ModalitySpec
from model.types import LIVER, MODALITIES, TUMOUR, MaskArray, Modality
from model.volume import Volume

from .augment import Augment, Draw
from .config import DataConfig, TrainConfig
from .synthetic import phantom

Quality = Literal["full", "merged", "healthy", "pseudo"]


@dataclass(frozen=True)
class Case:
    """One labelled volume on disk."""

    name: str
    modality: Modality
    patient: str
    quality: Quality
    licence: str
    role: str
    image: Path
    label: Path
    spacing_mm: tuple[float, float, float] | None = None


@dataclass(frozen=True, eq=False)
class Sample:
    """A preprocessed case: ``image`` float16 in [0, 1], ``label`` uint8, both ``(z, y, x)``."""

    name: str
    modality: Modality
    quality: Quality
    image: NDArray[np.float16]
    label: MaskArray
    spacing_mm: tuple[float, float, float]
    weight: float = 1.0

    def __post_init__(self) -> None:
        flat = {value: np.flatnonzero(self.label == value) for value in (LIVER, TUMOUR)}
        object.__setattr__(self, "_flat", flat)

    @property
    def has_tumour(self) -> bool:
        return len(self._flat[TUMOUR]) > 0  # type: ignore[attr-defined, no-any-return]

    def voxel(self, value: int, rng: np.random.Generator) -> NDArray[np.int64] | None:
        """A random voxel ``(z, y, x)`` with that label, if there is one."""
        flat = self._flat[value]  # type: ignore[attr-defined]
        if not len(flat):
            return None
        return np.array(np.unravel_index(flat[rng.integers(len(flat))], self.label.shape))


@dataclass(frozen=True)
class Batch:
    """One CT and one MR draw: images ``(n, 1, z, y, x)``, labels ``(n, z, y, x)``."""

    images: dict[Modality, Tensor]
    labels: dict[Modality, Tensor]
    quality: dict[Modality, list[str]]
    cases: dict[Modality, list[str]]
    exchange: bool


def list_cases(data: DataConfig) -> list[Case]:
    """The cases of ``cases.json``; raises ``ConfigError`` for a missing root, file or case."""
    index = data.root / "cases.json"
    if not index.is_file():
        raise ConfigError(f"{index} does not exist; data.root must hold cases.json")
    cases = [_case(data, row) for row in json.loads(index.read_text(encoding="utf-8"))]
    names = {case.name for case in cases}
    for name in (*data.validate_cases, *data.exclude, *data.weights, *data.spacings_mm):
        if name not in names:
            raise ConfigError(f"case {name!r} is not in {index}")
    return [case for case in cases if case.name not in data.exclude]


def split(cases: Sequence[Case], data: DataConfig) -> tuple[list[Case], list[Case]]:
    """Training and validation cases; no patient is in both, test cases in neither.

    A case whose geometry is lost, or whose label is another model's, never validates.
    """
    held = {case.patient for case in cases if case.name in data.validate_cases}
    train = [c for c in cases if c.patient not in held and c.role != "test"]
    validate = [c for c in cases if c.patient in held and c.quality != "pseudo"]
    for modality in MODALITIES:
        if not any(c.modality == modality for c in train):
            raise ConfigError(f"no {modality} case is left to train on")
    return train, validate


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
        affine = volume.affine.copy()
        affine[:3, :3] *= np.array(case.spacing_mm[::-1]) / np.array(volume.spacing_mm[::-1])
        volume = Volume(volume.array, affine, volume.modality)
    return volume, label.array.astype(np.uint8)


def prepare_sample(
    name: str, volume: Volume, label: MaskArray, quality: Quality, spec: ModalitySpec
) -> Sample:
    """Preprocess by the deployed code."""
    prepared = prepare(volume, spec)
    mask = resample_label(label, volume.affine, prepared)
    image = prepared.array.astype(np.float16)
    return Sample(name, volume.modality, quality, image, mask, spec.spacing_mm)


def load_samples(
    cases: Sequence[Case], config: TrainConfig, cache: Path, tell: Callable[[int, int], None]
) -> list[Sample]:
    """Preprocessed training samples, read from ``cache`` where they lie there already."""
    samples = []
    total = len(cases) + 2 * config.data.phantoms
    for number, case in enumerate(cases):
        spec = config.modalities[case.modality]
        key = f"{spec.model_dump_json()}{case.spacing_mm}{case.image.stat().st_mtime_ns}"
        sample = _cached(cache, case.name, key, lambda c=case, s=spec: _load_case(c, s))  # type: ignore[misc]
        samples.append(_weighted(sample, config.data.weights.get(case.name, 1.0)))
        tell(number + 1, total)
    for modality in MODALITIES:
        for number in range(config.data.phantoms):
            spec = config.modalities[modality]
            name = f"{modality}/phantom_{number:03d}"
            key = f"{spec.model_dump_json()}{config.seed}"
            make = lambda m=modality, n=number, s=spec: _phantom(m, config.seed + n, s)  # noqa: E731
            samples.append(_weighted(_cached(cache, name, key, make), config.data.phantom_weight))
            tell(len(samples), total)
    return samples


class Batches(torch.utils.data.Dataset[Batch]):
    """Batch number ``step``: a function of the seed and the step alone, so resuming is exact."""

    def __init__(self, samples: Sequence[Sample], config: TrainConfig, rank: int = 0) -> None:
        self._config, self._rank = config, rank
        self._samples = {m: [s for s in samples if s.modality == m] for m in MODALITIES}
        self._augment = {m: Augment(config.augment, config.modalities[m], m) for m in MODALITIES}

    def __len__(self) -> int:
        return self._config.steps

    def __getitem__(self, step: int) -> Batch:
        draws = {m: self._draw(m, step) for m in MODALITIES}
        rng = np.random.default_rng((self._config.seed, step, 2))  # the same on every rank
        return Batch(
            images={m: torch.from_numpy(np.stack([d.image for d in ds]))[:, None] for m, ds in draws.items()},
            labels={m: torch.from_numpy(np.stack([d.label for d in ds])) for m, ds in draws.items()},
            quality={m: [d.quality for d in ds] for m, ds in draws.items()},
            cases={m: [d.case for d in ds] for m, ds in draws.items()},
            exchange=bool(rng.random() >= self._config.exchange_dropout),
        )

    def _draw(self, modality: Modality, step: int) -> list[Draw]:
        number = MODALITIES.index(modality)
        draws = []
        for item in range(self._config.batch_size):
            rng = np.random.default_rng((self._config.seed, step, number, self._rank, item))
            borrow = modality == "mr" and rng.random() < self._config.augment.borrow_ct
            pool = self._samples["ct" if borrow else modality]
            weights = np.array([s.weight for s in pool])
            sample = pool[rng.choice(len(pool), p=weights / weights.sum())]
            draws.append(self._augment[modality](sample, rng, borrowed=borrow))
        return draws


def prefetch(batches: Batches, start: int, stop: int):  # type: ignore[no-untyped-def]
    """Batches ``start`` to ``stop``, the next one made while the current one is used."""
    with ThreadPoolExecutor(1) as pool:
        ahead = pool.submit(batches.__getitem__, start)
        for step in range(start, stop):
            batch = ahead.result()
            if step + 1 < stop:
                ahead = pool.submit(batches.__getitem__, step + 1)
            yield step, batch


def _case(data: DataConfig, row: dict[str, str]) -> Case:
    name = row["case"]
    folder = data.root / name
    image, label = folder / "image.nii.gz", folder / "label.nii.gz"
    for file in (image, label):
        if not file.is_file():
            raise ConfigError(f"case {name!r}: {file} does not exist")
    return Case(
        name, row["modality"], row["patient"], row["labels"], row["licence"], row["role"],  # type: ignore[arg-type]
        image, label, data.spacings_mm.get(name),
    )  # fmt: skip


def _load_case(case: Case, spec: ModalitySpec) -> Sample:
    volume, label = read_case(case)
    return prepare_sample(case.name, volume, label, case.quality, spec)


def _phantom(modality: Modality, seed: int, spec: ModalitySpec) -> Sample:
    rng = np.random.default_rng((seed, MODALITIES.index(modality)))
    volume, label = phantom(modality, rng)
    return prepare_sample(f"{modality}/phantom", volume, label, "full", spec)


def _cached(cache: Path, name: str, key: str, make: Callable[[], Sample]) -> Sample:
    digest = hashlib.sha256(key.encode()).hexdigest()[:16]
    file = cache / f"{name.replace('/', '_')}-{digest}.npz"
    if file.is_file():
        with np.load(file, allow_pickle=False) as z:
            return Sample(
                name, str(z["modality"]), str(z["quality"]), z["image"], z["label"],  # type: ignore[arg-type]
                tuple(z["spacing_mm"].tolist()),
            )  # fmt: skip
    sample = make()
    cache.mkdir(parents=True, exist_ok=True)
    partial = file.with_suffix(".partial.npz")
    np.savez(
        partial, image=sample.image, label=sample.label, modality=sample.modality,
        quality=sample.quality, spacing_mm=np.array(sample.spacing_mm),
    )  # fmt: skip
    partial.rename(file)
    return sample


def _weighted(sample: Sample, weight: float) -> Sample:
    return Sample(
        sample.name, sample.modality, sample.quality, sample.image, sample.label,
        sample.spacing_mm, weight,
    )  # fmt: skip
