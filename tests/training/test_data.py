import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.testing import assert_array_equal

from model.errors import ConfigError, InputError
from model.nifti import read_nifti, write_nifti
from model.resample import reorient
from model.types import MODALITIES
from model.volume import Volume
from training.config import AugmentConfig, DataConfig, TrainConfig, load_config
from training.data import (
    Batch,
    Batches,
    Case,
    list_cases,
    load_samples,
    prefetch,
    prepare_sample,
    read_case,
    split,
)
from training.sample import Sample

ConfigMaker = Callable[..., TrainConfig]
SMALL = Path(__file__).parents[2] / "training" / "configs" / "small.yaml"


@pytest.fixture
def own(root: Path, tmp_path: Path) -> Path:
    """A copy of the cases that a test may damage."""
    return Path(shutil.copytree(root, tmp_path / "own"))


@pytest.fixture(scope="session")
def samples(root: Path, make_config: ConfigMaker, tmp_path_factory) -> list[Sample]:
    config = make_config(data={"root": root})
    return load_samples(list_cases(config.data), config, tmp_path_factory.mktemp("cache"), nothing)


def nothing(done: int, total: int) -> None:
    pass


def edit_index(root: Path, case: str, **changes: str | None) -> None:
    index = root / "cases.json"
    rows = json.loads(index.read_text())
    row = next(row for row in rows if row["case"] == case)
    row.update(changes)
    index.write_text(json.dumps([{k: v for k, v in r.items() if v is not None} for r in rows]))


def named(cases: list[Case]) -> set[str]:
    return {case.name for case in cases}


def same(first: Batch, second: Batch) -> bool:
    tensors = [(b.images[m], b.labels[m]) for b in (first, second) for m in MODALITIES]
    return all(
        torch.equal(a, b) for left, right in zip(tensors[:2], tensors[2:], strict=True)
        for a, b in zip(left, right, strict=True)
    )  # fmt: skip


def test_cases_carry_what_the_index_says(root: Path) -> None:
    cases = {case.name: case for case in list_cases(DataConfig(root=root))}
    assert len(cases) == 8
    case = cases["mr/c"]
    assert (case.modality, case.patient, case.quality) == ("mr", "mr-one", "merged")
    assert (case.licence, case.role, case.spacing_mm) == ("CC0", "develop", None)


def test_a_patient_is_on_one_side_only(root: Path) -> None:
    data = DataConfig(root=root, validate_cases=("mr/a",))
    train, validate = split(list_cases(data), data)
    assert named(validate) == {"mr/a", "mr/c"}
    assert named(train) == {"ct/a", "ct/b", "ct/c", "ct/d", "mr/b", "mr/d"}


def test_chaos_patient_10_is_on_one_side_of_the_shipped_split(data_dir: Path) -> None:
    """T1 in phase, T1 out of phase and T2-SPIR 10 are one person."""
    data = load_config(SMALL).data.model_copy(update={"root": data_dir})
    train, validate = split(list_cases(data), data)
    ten = {case.name for case in (*train, *validate) if case.patient == "chaos_mr_10"}
    assert len(ten) == 3
    assert ten <= named(validate)
    assert not {c.patient for c in train} & {c.patient for c in validate}
    assert not [c for c in (*train, *validate) if c.role == "test"]


def test_patients_of_test_cases_are_on_neither_side(own: Path) -> None:
    edit_index(own, "ct/a", role="test")
    for held in (("ct/b",), ("ct/b", "ct/c")):
        data = DataConfig(root=own, validate_cases=held)
        train, validate = split(list_cases(data), data)
        assert named(validate) == {"ct/b"}
        assert not named(train) & {"ct/a", "ct/c"}


def test_pseudo_labels_and_lost_geometry_never_validate(root: Path) -> None:
    names = ("ct/d", "mr/a", "mr/c")
    data = DataConfig(root=root, validate_cases=names, spacings_mm={"mr/a": (9, 9, 9)})
    train, validate = split(list_cases(data), data)
    assert named(validate) == {"mr/c"}
    assert not named(train) & set(names)


def test_a_lost_spacing_in_the_index_never_validates(own: Path) -> None:
    index = own / "cases.json"
    rows = json.loads(index.read_text())
    for row in rows:
        row["spacing_known"] = row["case"] != "mr/a"
    index.write_text(json.dumps(rows))
    data = DataConfig(root=own, validate_cases=("mr/a",))
    assert named(split(list_cases(data), data)[1]) == {"mr/c"}


def test_something_must_be_left_to_train_on(root: Path) -> None:
    data = DataConfig(root=root, validate_cases=("mr/a", "mr/b", "mr/d"))
    with pytest.raises(ConfigError, match="no mr case"):
        split(list_cases(data), data)


def test_excluded_cases_are_gone(root: Path) -> None:
    assert "ct/d" not in named(list_cases(DataConfig(root=root, exclude=("ct/d",))))


@pytest.mark.parametrize(
    "data",
    [
        {"validate_cases": ("ct/z",)}, {"exclude": ("ct/z",)}, {"weights": {"ct/z": 1}},
        {"spacings_mm": {"ct/z": (1, 1, 1)}},
    ],
)  # fmt: skip
def test_unknown_cases_are_named(root: Path, data: dict) -> None:
    with pytest.raises(ConfigError, match="'ct/z' is not in"):
        list_cases(DataConfig(root=root, **data))


def test_missing_index_and_files_are_named(own: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cases\.json does not exist"):
        list_cases(DataConfig(root=tmp_path / "nowhere"))
    (own / "mr/b/label.nii.gz").unlink()
    with pytest.raises(ConfigError, match=r"case 'mr/b': .*label\.nii\.gz does not exist"):
        list_cases(DataConfig(root=own))


@pytest.mark.parametrize(
    "changes", [{"modality": "us"}, {"labels": "perfect"}, {"patient": None}, {"licence": None}]
)
def test_invalid_entries_are_named(own: Path, changes: dict[str, str | None]) -> None:
    edit_index(own, "mr/b", **changes)
    with pytest.raises(ConfigError, match="case 'mr/b'") as caught:
        list_cases(DataConfig(root=own))
    assert next(iter(changes)) in caught.value.message


@pytest.mark.parametrize("damage", ["shape", "place", "value"])
def test_labels_that_do_not_fit_are_refused(own: Path, damage: str) -> None:
    case = next(c for c in list_cases(DataConfig(root=own)) if c.name == "ct/b")
    label = read_nifti(case.label, "ct")
    array, affine = label.array.astype(np.uint8), label.affine.copy()
    if damage == "shape":
        array = array[:-1]
    elif damage == "place":
        affine[2, 3] += 10
    else:
        array[0, 0, 0] = 3
    write_nifti(case.label, array, affine)
    with pytest.raises(InputError, match="ct/b: label") as caught:
        read_case(case)
    assert caught.value.code == "label_mismatch"


def test_lost_spacing_is_put_back(root: Path) -> None:
    case = list_cases(DataConfig(root=root, spacings_mm={"ct/a": (5, 2, 3)}))[0]
    volume, label = read_case(case)
    assert volume.spacing_mm == pytest.approx((5, 2, 3))
    plain, same_label = read_case(replace(case, spacing_mm=None))
    assert plain.spacing_mm == pytest.approx((10, 8, 8))
    assert_array_equal(volume.affine[:3, 3], plain.affine[:3, 3])
    assert_array_equal(label, same_label)


def test_orientation_of_the_file_does_not_matter_but_the_spec_s_does(
    root: Path, make_config: ConfigMaker
) -> None:
    volume, label = read_case(list_cases(DataConfig(root=root))[0])
    spec = make_config().modalities["ct"]
    straight = prepare_sample("ct/a", volume, label, "full", spec)
    array, affine = reorient(volume.array, volume.affine, "SRP")
    turned_label, _ = reorient(label, volume.affine, "SRP")
    turned = Volume(np.ascontiguousarray(array), affine, "ct")
    again = prepare_sample("ct/a", turned, np.ascontiguousarray(turned_label), "full", spec)
    assert_array_equal(again.label, straight.label)
    np.testing.assert_allclose(again.image, straight.image, atol=2e-3)
    las = spec.model_copy(update={"orientation": "LAS"})
    mirrored = prepare_sample("ct/a", volume, label, "full", las)
    assert_array_equal(mirrored.label, straight.label[..., ::-1])
    assert not np.array_equal(mirrored.label, straight.label)


def test_samples_carry_quality_weight_and_grid(root: Path, samples: list[Sample]) -> None:
    by_name = {sample.name: sample for sample in samples}
    assert by_name["mr/c"].quality == "merged"
    for sample in samples:
        assert sample.image.shape == sample.label.shape
        assert sample.image.dtype == np.float16
        assert sample.spacing_mm == (10, 8, 8)
        assert (sample.label > 0).any()
        assert sample.has_tumour == bool((sample.label == 2).any())


def test_voxels_are_drawn_from_their_label(samples: list[Sample]) -> None:
    rng = np.random.default_rng(0)
    sample = samples[0]
    drawn = [sample.voxel(1, rng) for _ in range(20)]
    assert all(sample.label[tuple(voxel)] == 1 for voxel in drawn)  # type: ignore[arg-type]
    blank = replace(sample, label=np.zeros_like(sample.label))
    assert blank.voxel(1, rng) is None


def test_every_voxel_of_a_label_is_drawn_as_from_one_list(samples: list[Sample]) -> None:
    """A run that was begun when all places were kept in memory goes on with the same draws."""
    sample = samples[0]
    for value in (1, 2):
        flat = np.flatnonzero(sample.label == value)
        first, second = np.random.default_rng(1), np.random.default_rng(1)
        for _ in range(50):
            wanted = np.unravel_index(flat[second.integers(flat.size)], sample.label.shape)
            assert_array_equal(sample.voxel(value, first), wanted)


def test_batches_are_a_function_of_the_step(
    samples: list[Sample], make_config: ConfigMaker
) -> None:
    config = make_config(batch_size=2, exchange_dropout=0.5)
    forwards = [Batches(samples, config)[step] for step in range(4)]
    other = Batches(samples, config)
    backwards = [other[step] for step in reversed(range(4))][::-1]
    assert all(same(a, b) for a, b in zip(forwards, backwards, strict=True))
    assert [b.cases for b in forwards] == [b.cases for b in backwards]
    assert not same(forwards[0], forwards[1])


def test_batches_hold_one_draw_of_each_modality(
    samples: list[Sample], make_config: ConfigMaker
) -> None:
    batch = Batches(samples, make_config(batch_size=3))[0]
    for modality in MODALITIES:
        assert batch.images[modality].shape == (3, 1, 16, 16, 32)
        assert batch.labels[modality].shape == (3, 16, 16, 32)
        assert batch.images[modality].dtype == torch.float32
        assert all(case.startswith(modality) for case in batch.cases[modality])
        quality = {s.name: s.quality for s in samples}
        assert batch.quality[modality] == [quality[case] for case in batch.cases[modality]]


def test_ct_and_mr_are_drawn_independently(samples: list[Sample], make_config: ConfigMaker) -> None:
    """Eq. (1): every pair of cases comes up."""
    batches = Batches(samples, make_config())
    pairs = {(b.cases["ct"][0], b.cases["mr"][0]) for b in (batches[s] for s in range(120))}
    assert len(pairs) == 16


def test_seeds_and_ranks_differ_but_ranks_agree_on_exchange(
    samples: list[Sample], make_config: ConfigMaker
) -> None:
    config = make_config(exchange_dropout=0.5)
    first, second = Batches(samples, config, rank=0), Batches(samples, config, rank=1)
    seeded = Batches(samples, config.model_copy(update={"seed": 1}))
    assert not any(same(first[s], second[s]) or same(first[s], seeded[s]) for s in range(3))
    exchanges = [first[s].exchange for s in range(40)]
    assert exchanges == [second[s].exchange for s in range(40)]
    assert 8 < sum(exchanges) < 32


@pytest.mark.parametrize(("dropout", "expected"), [(0.0, True), (1.0, False)])
def test_exchange_dropout_at_its_ends(
    samples: list[Sample], make_config: ConfigMaker, dropout: float, expected: bool
) -> None:
    batches = Batches(samples, make_config(exchange_dropout=dropout))
    assert all(batches[s].exchange is expected for s in range(10))


def test_weights_decide_how_often_a_case_is_drawn(
    samples: list[Sample], make_config: ConfigMaker
) -> None:
    heavy = [replace(s, weight=30.0 if s.name.endswith("/b") else 1.0) for s in samples]
    batches = Batches(heavy, make_config())
    drawn = [batches[s].cases[m][0] for s in range(40) for m in MODALITIES]
    assert np.mean([name.endswith("/b") for name in drawn]) > 0.8


def test_mr_borrows_ct_on_its_own_grid_where_asked(
    root: Path, tmp_path: Path, make_config: ConfigMaker, values: dict[str, Any]
) -> None:
    mr = {**values["modalities"]["mr"], "spacing_mm": (5, 8, 8)}
    config = make_config(
        data={"root": root, "exclude": ("ct/c", "ct/d", "mr/c", "mr/d")},
        modalities={**values["modalities"], "mr": mr},
        augment={"borrow_ct": 1.0},
    )
    loaded = load_samples(list_cases(config.data), config, tmp_path, nothing)
    lent = [sample for sample in loaded if sample.borrowed]
    assert {s.name for s in lent} == {"ct/a", "ct/b"}
    assert {(s.modality, s.spacing_mm) for s in lent} == {("mr", (5, 8, 8))}
    batches = Batches(loaded, config)
    assert all(batches[s].cases["mr"][0].startswith("ct/") for s in range(5))
    own = Batches(loaded, config.model_copy(update={"augment": AugmentConfig()}))
    assert all(own[s].cases["mr"][0].startswith("mr/") for s in range(5))


class Numbers(Batches):
    """Counts instead of drawing; the fifth batch cannot be made."""

    def __init__(self) -> None:
        self.made: list[int] = []

    def __getitem__(self, step: int) -> Batch:
        if step == 5:
            raise InputError("batch 5")
        self.made.append(step)
        return Batch({}, {}, {}, {"ct": [str(step)]}, True)


def test_prefetch_keeps_the_order_and_starts_anywhere() -> None:
    numbers = Numbers()
    found = [(step, batch.cases["ct"]) for step, batch in prefetch(numbers, 2, 5)]
    assert found == [(2, ["2"]), (3, ["3"]), (4, ["4"])]
    assert numbers.made == [2, 3, 4]


def test_prefetch_of_nothing_makes_nothing() -> None:
    numbers = Numbers()
    assert list(prefetch(numbers, 3, 3)) == []
    assert numbers.made == []


def test_prefetch_hands_on_what_went_wrong() -> None:
    stream = prefetch(Numbers(), 4, 7)
    assert next(stream)[0] == 4
    with pytest.raises(InputError, match="batch 5"):
        next(stream)
