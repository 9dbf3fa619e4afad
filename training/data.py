"""The unpaired batches (eq. 1), made of cached samples. Cases and the cache are named here too."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from numpy.random import Generator
from numpy.typing import NDArray
from torch import Tensor

from model.types import MODALITIES, Modality

from .augment import Augment, Draw
from .cache import load_samples, prepare_sample
from .cases import INDEX, TEST, Case, list_cases, may_be_tested, read_case, split
from .config import TrainConfig
from .sample import Quality, Sample

__all__ = [
    "INDEX",
    "TEST",
    "Batch",
    "Batches",
    "Case",
    "list_cases",
    "load_samples",
    "may_be_tested",
    "prefetch",
    "prepare_sample",
    "read_case",
    "split",
]


@dataclass(frozen=True)
class Batch:
    """One CT and one MR draw: images ``(n, 1, z, y, x)``, labels ``(n, z, y, x)``."""

    images: dict[Modality, Tensor]
    labels: dict[Modality, Tensor]
    quality: dict[Modality, list[Quality]]
    cases: dict[Modality, list[str]]
    exchange: bool


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


def _stack(arrays: Sequence[NDArray[np.generic]]) -> Tensor:
    return torch.from_numpy(np.stack(arrays))
