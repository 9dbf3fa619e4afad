from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from model.metrics import dice
from model.network import AQCFNet
from model.nifti import read_nifti
from model.pipeline import Result
from model.preprocess import prepare, to_native
from model.types import Batch, MaskArray
from training.config import TrainConfig
from training.data import Case, list_cases, read_case
from training.evaluate import CaseScore, draft_spec, evaluate, mean_dice, score, validate

ConfigMaker = Callable[..., TrainConfig]


class Oracle:
    """A backend that knows the answer: logits from the label of the one window it is shown."""

    name, engine, precision = "oracle-cpu-f32", "oracle", "f32"

    def __init__(self, wrong: bool = False) -> None:
        self.shown: list[Batch] = []
        self._wrong = wrong

    def logits(self, batch: Batch) -> Batch:
        self.shown.append(batch)
        organ = np.where(batch[:, 0] > 0.4, 5.0, -5.0) * (-1 if self._wrong else 1)
        return np.stack([-organ, organ, np.full_like(organ, -9)], axis=1).astype(np.float32)


@pytest.fixture(scope="module")
def cases(root: Path, make_config: ConfigMaker) -> dict[str, Case]:
    return {case.name: case for case in list_cases(make_config(data={"root": root}).data)}


def result_of(case: Case, mask: MaskArray) -> Result:
    """A result with this mask; only it and the times are looked at."""
    volume, _ = read_case(case)
    return Result(
        mask=mask, affine=volume.affine, outcome="lesion_found", measurements=None,  # type: ignore[arg-type]
        lesion_labels=None, applied=(), seconds={"network": 1.0, "other": 0.5},
        engine="none", profile="fast",
    )  # fmt: skip


def case_score(modality: str, liver: float, tumour: float | None = None) -> CaseScore:
    return CaseScore("x", modality, "full", liver, 1, 1, tumour, 1, 1, 1, 1, 1)  # type: ignore[arg-type]


def test_a_perfect_mask_scores_perfectly(cases: dict[str, Case]) -> None:
    case = cases["ct/b"]
    volume, truth = read_case(case)
    found = score(case, volume, truth, result_of(case, truth))
    assert (found.liver_dice, found.tumour_dice) == (1.0, 1.0)
    assert (found.liver_hd95_mm, found.liver_msd_mm) == (0.0, 0.0)
    assert found.liver_ml == found.reference_ml == pytest.approx((truth > 0).sum() * 0.64)
    assert found.seconds == 1.5


def test_the_liver_counts_its_tumours_in(cases: dict[str, Case]) -> None:
    """As LiTS does: a tumour called liver costs the tumour, not the organ."""
    case = cases["ct/b"]
    volume, truth = read_case(case)
    found = score(case, volume, truth, result_of(case, truth.clip(max=1)))
    assert found.liver_dice == 1.0
    assert found.tumour_dice == 0.0


def test_distances_are_in_mm_of_the_native_grid(cases: dict[str, Case]) -> None:
    case = cases["ct/b"]
    volume, truth = read_case(case)
    moved = np.roll(truth, 1, axis=0)
    assert score(case, volume, truth, result_of(case, moved)).liver_hd95_mm == pytest.approx(10.0)


def test_an_empty_prediction_is_no_zero_distance(cases: dict[str, Case]) -> None:
    case = cases["ct/b"]
    volume, truth = read_case(case)
    found = score(case, volume, truth, result_of(case, np.zeros_like(truth)))
    assert (found.liver_dice, found.tumour_dice) == (0.0, 0.0)
    diagonal = np.linalg.norm(np.array(volume.shape) * volume.spacing_mm)
    assert found.liver_hd95_mm == found.tumour_msd_mm == pytest.approx(diagonal)


@pytest.mark.parametrize("quality", ["merged", "healthy", "pseudo"])
def test_tumours_are_not_scored_where_the_label_does_not_know_them(
    cases: dict[str, Case], quality: str
) -> None:
    case = replace(cases["ct/b"], quality=quality)  # type: ignore[arg-type]
    volume, truth = read_case(case)
    found = score(case, volume, truth, result_of(case, truth))
    assert found.tumour_dice is found.tumour_hd95_mm is found.tumour_msd_mm is None


def test_mean_dice_weighs_modalities_then_cases_then_classes() -> None:
    scores = [case_score("ct", 0.8, 0.4), case_score("ct", 1.0), case_score("mr", 0.2)]
    assert mean_dice(scores) == pytest.approx(((0.6 + 1.0) / 2 + 0.2) / 2)
    assert mean_dice([]) == 0.0


def test_rows_are_rounded_and_complete() -> None:
    row = case_score("ct", 0.123456).row()
    assert row["liver_dice"] == 0.1235
    assert row["tumour_dice"] is None
    assert list(row)[:3] == ["case", "modality", "quality"]


def test_evaluation_goes_through_the_pipeline(
    cases: dict[str, Case], make_config: ConfigMaker, tmp_path: Path
) -> None:
    """Native grid, the modality's own spec, a picture of each case."""
    backends = {"ct": Oracle(), "mr": Oracle(wrong=True)}
    told: list[str] = []
    chosen = [cases["ct/b"], cases["mr/b"]]
    scores = evaluate(
        lambda m: backends[m], draft_spec(make_config()), chosen, told.append,
        profile="fast", pictures=tmp_path / "pictures", masks=tmp_path / "masks",
    )  # fmt: skip
    assert told == [s.case for s in scores] == ["ct/b", "mr/b"]
    assert all(b.shape[1:] == (1, 16, 16, 32) for o in backends.values() for b in o.shown)
    assert {p.name for p in (tmp_path / "pictures").iterdir()} == {"ct_b.png", "mr_b.png"}
    assert 0 < scores[0].liver_dice < 1
    mask = read_nifti(tmp_path / "masks" / "ct_b.nii.gz", "ct")
    volume, truth = read_case(chosen[0])
    np.testing.assert_allclose(mask.affine, volume.affine, atol=1e-4)
    assert dice(mask.array > 0, truth > 0) == pytest.approx(scores[0].liver_dice)


def test_validation_is_the_lone_stream_of_the_network(
    cases: dict[str, Case], make_config: ConfigMaker, values: dict[str, Any]
) -> None:
    """One modality in, the other absent: the mask of the zero-filled network, by hand."""
    rules = {"largest_liver_component": False, "tumour_inside_liver": False, "min_liver_ml": 0}
    one_window = {**values["modalities"]["ct"], "patch": (32, 48, 48)}
    config = make_config(
        modalities={**values["modalities"], "ct": one_window},
        postprocess={"ct": rules, "mr": rules},
    )
    torch.manual_seed(3)
    net, case = AQCFNet(config.network).eval(), cases["ct/b"]
    told: list[str] = []
    found = validate(net, [case], config, told.append)[0]
    volume, truth = read_case(case)
    prepared = prepare(volume, config.modalities["ct"])
    x = torch.from_numpy(prepared.array)[None, None]
    with torch.no_grad():
        logits = net(x, torch.zeros_like(x))[0][0].numpy()
    by_hand = score(case, volume, truth, result_of(case, to_native(logits, prepared)))
    assert prepared.shape == config.modalities["ct"].patch
    assert by_hand.liver_dice > 0.01
    assert found.liver_dice == pytest.approx(by_hand.liver_dice, abs=1e-3)
    assert told == ["ct/b"]
