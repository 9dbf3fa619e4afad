"""Cross-validation folds: by patient, stratified by modality and tumour presence (4.1.1)."""

from collections import defaultdict
from collections.abc import Sequence
from typing import TypeAlias

import numpy as np

from model.errors import ConfigError
from model.types import MODALITIES

from .data import Case, may_be_tested

Fold: TypeAlias = tuple[str, ...]  # names of cases
_Stratum: TypeAlias = tuple[tuple[str, ...], bool]


def make_folds(cases: Sequence[Case], count: int, seed: int) -> list[Fold]:
    """``count`` disjoint sets of cases to test on; together, every case that may be tested.

    All cases of a patient, of both modalities, are in one fold. Patients are shuffled within their
    stratum (modalities, any tumour) and dealt to the fold that has fewest of the modality, then
    fewest of the stratum.

    Raises ``ConfigError`` when a fold is left without a case of a modality.
    """
    patients: dict[str, list[Case]] = defaultdict(list)
    for case in cases:
        if may_be_tested(case):
            patients[case.patient].append(case)
    strata: dict[_Stratum, list[str]] = defaultdict(list)
    for patient in sorted(patients):
        strata[_stratum(patients[patient])].append(patient)
    dealt: list[list[str]] = [[] for _ in range(count)]
    rng = np.random.default_rng(seed)
    for stratum, members in sorted(strata.items(), key=_scarce_first):
        for patient in rng.permutation(members):
            _fewest(dealt, stratum, patients).append(str(patient))
    return [_checked(number, fold, patients) for number, fold in enumerate(dealt)]


def _stratum(cases: Sequence[Case]) -> _Stratum:
    return tuple(sorted({c.modality for c in cases})), any(c.has_tumour for c in cases)


def _scarce_first(item: tuple[_Stratum, list[str]]) -> tuple[int, int, _Stratum]:
    (modalities, tumour), _ = item
    return -len(modalities), -int(tumour), (modalities, tumour)


def _fewest(
    dealt: list[list[str]], stratum: _Stratum, patients: dict[str, list[Case]]
) -> list[str]:
    modalities = set(stratum[0])

    def fullness(fold: list[str]) -> tuple[int, int]:
        strata = [_stratum(patients[name]) for name in fold]
        return sum(bool(modalities & set(s[0])) for s in strata), strata.count(stratum)

    return min(dealt, key=fullness)


def _checked(number: int, fold: Sequence[str], patients: dict[str, list[Case]]) -> Fold:
    cases = [case for name in fold for case in patients[name]]
    for modality in MODALITIES:
        if not any(case.modality == modality for case in cases):
            raise ConfigError(f"fold {number} has no {modality} case; ask for fewer folds")
    return tuple(sorted(case.name for case in cases))
