from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.errors import ConfigError
from training.config import DataConfig
from training.data import Case, list_cases
from training.folds import make_folds

PLACE = Path("nowhere.nii.gz")


def case(name: str, patient: str, *, tumour: bool = False, quality: str = "full") -> Case:
    modality = name.split("/", maxsplit=1)[0]
    return Case(
        name, modality, patient, quality, "CC0", "develop", PLACE, PLACE, None, tumour,  # type: ignore[arg-type]
    )  # fmt: skip


def archive(ct: list[bool], mr: list[bool]) -> list[Case]:
    """One case a patient; the flags say which have tumours."""
    return [
        case(f"{modality}/{number}", f"{modality}{number}", tumour=tumour)
        for modality, flags in (("ct", ct), ("mr", mr))
        for number, tumour in enumerate(flags)
    ]


flags = st.lists(st.booleans(), min_size=5, max_size=30)


@settings(max_examples=60, deadline=None)
@given(flags, flags, st.integers(2, 5), st.integers(0, 1000))
def test_folds_are_a_stratified_partition(
    ct: list[bool], mr: list[bool], count: int, seed: int
) -> None:
    cases = archive(ct, mr)
    folds = make_folds(cases, count, seed)
    assert len(folds) == count
    assert Counter(name for fold in folds for name in fold) == Counter(c.name for c in cases)
    by_name = {c.name: c for c in cases}
    for modality in ("ct", "mr"):
        sizes = [sum(name.startswith(modality) for name in fold) for fold in folds]
        assert max(sizes) - min(sizes) <= 1
        with_tumour = [
            sum(name.startswith(modality) and by_name[name].has_tumour for name in fold)
            for fold in folds
        ]
        assert max(with_tumour) - min(with_tumour) <= 1


def test_the_seed_alone_decides() -> None:
    cases = archive([True, False] * 5, [False] * 10)
    assert make_folds(cases, 5, 1) == make_folds(list(reversed(cases)), 5, 1)
    assert make_folds(cases, 5, 1) != make_folds(cases, 5, 2)


def test_all_cases_of_a_patient_are_in_one_fold() -> None:
    shared = [case("ct/x", "x"), case("mr/x1", "x"), case("mr/x2", "x")]
    folds = make_folds([*archive([False] * 4, [False] * 4), *shared], 2, 0)
    assert sum({"ct/x", "mr/x1", "mr/x2"} <= set(fold) for fold in folds) == 1
    assert sum(bool({"ct/x", "mr/x1", "mr/x2"} & set(fold)) for fold in folds) == 1


def test_pseudo_labels_are_in_no_fold() -> None:
    pseudo = case("ct/p", "p", quality="pseudo")
    folds = make_folds([*archive([False] * 4, [False] * 4), pseudo], 2, 0)
    assert not any("ct/p" in fold for fold in folds)


def test_too_many_folds_are_refused() -> None:
    with pytest.raises(ConfigError, match="has no ct case; ask for fewer folds"):
        make_folds(archive([True] * 3, [False] * 9), 5, 0)


def test_the_real_archive_has_five_folds(data_dir: Path) -> None:
    cases = [c for c in list_cases(DataConfig(root=data_dir)) if c.role != "test"]
    folds = make_folds(cases, 5, 0)
    person = {"mr/chaos_t1_inphase_10", "mr/chaos_t1_outphase_10", "mr/chaos_t2spir_10"}
    assert sum(person <= set(fold) for fold in folds) == 1
    assert not any("pseudo" in name for fold in folds for name in fold)
