"""Preprocessed samples on disk."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from training.cache import load_samples
from training.cases import Case, list_cases
from training.config import TrainConfig
from training.sample import Sample

ConfigMaker = Callable[..., TrainConfig]


@pytest.fixture
def own(root: Path, tmp_path: Path) -> Path:
    """A copy of the cases that a test may damage."""
    return Path(shutil.copytree(root, tmp_path / "own"))


def nothing(done: int, total: int) -> None:
    pass


def one_case(config: TrainConfig) -> list[Case]:
    return [case for case in list_cases(config.data) if case.name == "ct/b"]


def cached(cases: list[Case], config: TrainConfig, folder: Path) -> Sample:
    return load_samples(cases, config, folder, nothing)[0]


def kept(folder: Path, part: str) -> Path:
    """The newest of the files that hold the images, or the labels."""
    return max(folder.glob(f"*.{part}.npy"), key=lambda file: file.stat().st_mtime_ns)


def test_cache_is_read_where_it_lies(own: Path, tmp_path: Path, make_config: ConfigMaker) -> None:
    config, cache = make_config(data={"root": own, "weights": {"ct/b": 3}}), tmp_path / "cache"
    brighter = cached(one_case(config), config, cache).image + np.float16(0.5)
    np.save(kept(cache, "image"), brighter)
    second = cached(one_case(config), config, cache)
    assert_array_equal(second.image, brighter)
    assert second.weight == 3
    assert {file.suffixes[-2] for file in cache.iterdir()} == {".image", ".label"}


def test_cached_samples_are_mapped_and_files_safe_from_writing(
    own: Path, tmp_path: Path, make_config: ConfigMaker
) -> None:
    config, cache = make_config(data={"root": own}), tmp_path / "cache"
    sample = cached(one_case(config), config, cache)
    assert isinstance(sample.image.base, np.memmap)
    before = kept(cache, "image").read_bytes()
    sample.image[:] = np.nan
    assert kept(cache, "image").read_bytes() == before


def test_processes_make_the_same_cache(
    root: Path, tmp_path: Path, make_config: ConfigMaker
) -> None:
    config = make_config(data={"root": root, "phantoms": 1}, augment={"borrow_ct": 0.5})
    cases = list_cases(config.data)
    told: list[tuple[int, int]] = []
    alone = load_samples(cases, config, tmp_path / "one", nothing)
    many = load_samples(cases, config, tmp_path / "two", lambda *n: told.append(n), workers=2)
    assert [s.name for s in many] == [s.name for s in alone]
    assert told == [(n, len(many)) for n in range(1, len(many) + 1)]
    first, second = (
        {f.name: f.read_bytes() for f in (tmp_path / n).iterdir()} for n in ("one", "two")
    )
    assert first == second


@pytest.mark.parametrize("part", ["image", "label"])
@pytest.mark.parametrize("damage", ["truncated", "empty", "foreign", "missing", "shape", "kind"])
def test_damaged_cache_is_made_anew(
    own: Path, tmp_path: Path, make_config: ConfigMaker, part: str, damage: str
) -> None:
    config, cache = make_config(data={"root": own}), tmp_path / "cache"
    first = cached(one_case(config), config, cache)
    image, label, file = np.array(first.image), np.array(first.label), kept(cache, part)
    whole = file.read_bytes()
    contents = {"truncated": whole[:-500], "empty": b"", "foreign": b"something else"}
    file.unlink()
    if damage in contents:
        file.write_bytes(contents[damage])
    elif damage != "missing":
        array = np.array(image if part == "image" else label)
        np.save(file, array[1:] if damage == "shape" else array.astype(np.float64))
    second = cached(one_case(config), config, cache)
    assert_array_equal(second.image, image)
    assert_array_equal(second.label, label)
    assert file.read_bytes() == whole


@pytest.mark.parametrize("file", ["image", "label"])
def test_cache_of_an_older_file_is_not_used(
    own: Path, tmp_path: Path, make_config: ConfigMaker, file: str
) -> None:
    config = make_config(data={"root": own})
    cached(one_case(config), config, tmp_path / "cache")
    before = set((tmp_path / "cache").iterdir())
    os.utime(own / f"ct/b/{file}.nii.gz", (1, 1))
    cached(one_case(config), config, tmp_path / "cache")
    after = set((tmp_path / "cache").iterdir())
    assert (len(before), len(after)) == (2, 4)
    assert before < after


def test_label_quality_is_never_stale(own: Path, tmp_path: Path, make_config: ConfigMaker) -> None:
    config = make_config(data={"root": own})
    cached(one_case(config), config, tmp_path / "cache")
    rows = json.loads((own / "cases.json").read_text())
    changed = [{**row, "labels": "healthy"} for row in rows]
    (own / "cases.json").write_text(json.dumps(changed))
    assert cached(one_case(config), config, tmp_path / "cache").quality == "healthy"


def test_heads_join_as_cases_without_a_liver(
    make_config: Callable[..., TrainConfig], tmp_path: Path
) -> None:
    config = make_config(data={"heads": 1, "head_weight": 0.2})
    samples = load_samples([], config, tmp_path, lambda *_: None)
    assert [(s.name, s.weight) for s in samples] == [("ct/head_000", 0.2), ("mr/head_000", 0.2)]
    for sample in samples:
        assert sample.image.max() > 0.5
        assert not sample.label.any()


def test_phantoms_join_and_are_the_same_from_the_cache(
    tmp_path: Path, make_config: ConfigMaker
) -> None:
    config = make_config(data={"phantoms": 1, "phantom_weight": 0.1})
    told: list[tuple[int, int]] = []
    made = load_samples([], config, tmp_path, lambda *counts: told.append(counts))
    kept = load_samples([], config, tmp_path, nothing)
    names = ["ct/phantom_000", "mr/phantom_000"]
    assert [s.name for s in made] == [s.name for s in kept] == names
    for first, second in zip(made, kept, strict=True):
        assert_array_equal(first.image, second.image)
        assert (first.weight, first.quality) == (0.1, "full")
    assert told == [(1, 2), (2, 2)]
