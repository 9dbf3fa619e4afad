"""Preprocessed samples, made once by the deployed code and mapped from disk.

A case is two files, ``<name>-<digest>.image.npy`` (float16) and ``.label.npy`` (uint8). The digest
covers the preprocessing, the time stamps of the sources and the grid, so that nothing stale is
read. They are mapped, not loaded: a run reads the patches that it draws, and any number of runs
shares one copy in the system's file cache.
"""

import hashlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from model.preprocess import prepare, resample_label
from model.spec import FixedIntensity, ModalitySpec
from model.types import MODALITIES, MaskArray, Modality
from model.volume import Volume

from .cases import Case, read_case
from .config import TrainConfig
from .parallel import each
from .sample import Quality, Sample
from .synthetic import head_phantom, phantom

BORROWED_HU = FixedIntensity(lo=-160, hi=240)  # wide enough that fat is not air
_CACHE_VERSION = 1  # raise when preprocessing gives other arrays
_UNREADABLE = (OSError, ValueError, KeyError, EOFError)

Labelled: TypeAlias = tuple[Volume, MaskArray]
Arrays: TypeAlias = tuple[NDArray[np.float16], MaskArray]


@dataclass(frozen=True)
class Maker:
    """How one sample comes about. ``case``: none for a phantom. Can be sent to a process."""

    case: Case | None
    load: Callable[[], Labelled]
    name: str
    modality: Modality
    quality: Quality
    spec: ModalitySpec
    key: str
    weight: float
    borrowed: bool = False


def prepare_sample(
    name: str, volume: Volume, label: MaskArray, quality: Quality, spec: ModalitySpec
) -> Sample:
    """Preprocess by the deployed code."""
    image, mask = _preprocess(volume, label, spec)
    return Sample(name, volume.modality, quality, image, mask, spec.spacing_mm)


def load_samples(
    cases: Sequence[Case],
    config: TrainConfig,
    cache: Path,
    tell: Callable[[int, int], None],
    *,
    workers: int = 1,
) -> list[Sample]:
    """Preprocessed training samples, mapped from ``cache``; what is not there is made, by
    ``workers`` processes. ``tell(done, total)`` follows."""
    makers = list_makers(cases, config)
    for done, _ in enumerate(each(partial(fill, cache), makers, workers), 1):
        tell(done, len(makers))
    return [_sample(maker, *_arrays(cache, maker, maker.load)) for maker in makers]


def list_makers(cases: Sequence[Case], config: TrainConfig) -> list[Maker]:
    """One for each sample of a run: cases, CT cases lent to MR, phantoms, heads."""
    data = config.data
    lent = [case for case in cases if case.modality == "ct" and config.augment.borrow_ct]
    return [
        *(_real(case, config) for case in cases),
        *(_real(case, config, borrowed=True) for case in lent),
        *(
            _made(kind, m, n, config)
            for kind, count in (("phantom", data.phantoms), ("head", data.heads))
            for m in MODALITIES
            for n in range(count)
        ),
    ]


def fill(cache: Path, maker: Maker, load: Callable[[], Labelled] | None = None) -> None:
    """See that the sample's arrays lie in ``cache``. ``load`` in place of the maker's own, where
    the caller has read the case already."""
    _arrays(cache, maker, load or maker.load)


def file_stem(cache: Path, maker: Maker) -> Path:
    """Where the sample's files begin."""
    digest = hashlib.sha256(f"{_CACHE_VERSION}{maker.key}".encode()).hexdigest()[:16]
    tag = maker.name.replace("/", "_")
    return cache / f"{tag}-{digest}"


def _real(case: Case, config: TrainConfig, *, borrowed: bool = False) -> Maker:
    modality: Modality = "mr" if borrowed else case.modality
    spec = config.modalities[modality]
    if borrowed:
        spec = spec.model_copy(update={"intensity": BORROWED_HU})
    stamps = [file.stat().st_mtime_ns for file in (case.image, case.label)]
    return Maker(
        case, partial(read_case, case), case.name, modality, case.quality, spec,
        f"{spec.model_dump_json()}{case.spacing_mm}{stamps}",
        config.data.weights.get(case.name, 1.0), borrowed,
    )  # fmt: skip


def _made(kind: str, modality: Modality, number: int, config: TrainConfig) -> Maker:
    spec, name = config.modalities[modality], f"{modality}/{kind}_{number:03d}"
    seed = (config.seed + number, MODALITIES.index(modality))
    weight = config.data.phantom_weight if kind == "phantom" else config.data.head_weight
    return Maker(
        None, partial(_synthetic, kind, modality, seed), name, modality, "full", spec,
        f"{spec.model_dump_json()}{config.seed}", weight,
    )  # fmt: skip


def _synthetic(kind: str, modality: Modality, seed: tuple[int, int]) -> Labelled:
    rng = np.random.default_rng(seed)
    return phantom(modality, rng) if kind == "phantom" else _head(modality, rng)


def _head(modality: Modality, rng: Generator) -> Labelled:
    volume = head_phantom(rng, modality)
    return volume, np.zeros(volume.shape, np.uint8)


def _sample(maker: Maker, image: NDArray[np.float16], label: MaskArray) -> Sample:
    return Sample(
        maker.name, maker.modality, maker.quality, image, label, maker.spec.spacing_mm,
        maker.weight, maker.borrowed,
    )  # fmt: skip


def _preprocess(volume: Volume, label: MaskArray, spec: ModalitySpec) -> Arrays:
    prepared = prepare(volume, spec)
    return prepared.array.astype(np.float16), resample_label(label, volume.affine, prepared)


def _arrays(cache: Path, maker: Maker, load: Callable[[], Labelled]) -> Arrays:
    """The sample's arrays, mapped; a missing or damaged pair is made anew."""
    stem = file_stem(cache, maker)
    image, label = (stem.with_name(f"{stem.name}.{part}.npy") for part in ("image", "label"))
    if not _is_whole(image, label):
        cache.mkdir(parents=True, exist_ok=True)
        made = _preprocess(*load(), maker.spec)
        _write(image, made[0])
        _write(label, made[1])
    return _mapped(image), _mapped(label)


def _is_whole(image: Path, label: Path) -> bool:
    """Whether both files are there, of one shape and of full length."""
    try:
        first, second = _mapped(image), _mapped(label)
    except _UNREADABLE:
        return False
    same = first.shape == second.shape and first.ndim == 3
    return same and first.dtype == np.float16 and second.dtype == np.uint8


def _mapped(file: Path) -> NDArray[Any]:
    # Copy on write: whoever changes a sample changes its own view, never the file.
    return np.asarray(np.load(file, mmap_mode="c", allow_pickle=False))


def _write(file: Path, array: NDArray[np.generic]) -> None:
    """Whole or not at all."""
    partial_file = file.with_name(f".{file.name}.{os.getpid()}.partial")
    with partial_file.open("wb") as stream:
        np.save(stream, array, allow_pickle=False)
    partial_file.replace(file)
