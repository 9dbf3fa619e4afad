"""Curves and overlays."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from study_folder import SHAPE, label_of, write_rows

from model.types import Modality
from model.volume import Volume
from training.report import draw_curves
from training.report.curves import band, draw_folds, validation_points
from training.report.overlays import (
    ROWS,
    choose,
    draw_overlays,
    fullest,
    painted,
    take_slice,
)
from training.report.study import Score, read_study


def pixels(file: Path) -> np.ndarray:  # type: ignore[type-arg]
    return np.asarray(Image.open(file).convert("RGB"), int)


def test_a_band_is_over_the_folds_that_got_there() -> None:
    found = band([{1: 0.2, 2: 0.4}, {1: 0.4}, {}])
    assert found.steps == (1, 2)
    assert found.mean == pytest.approx((0.3, 0.4))
    assert (found.low, found.high, found.folds) == ((0.2, 0.4), (0.4, 0.4), 2)


def test_validation_is_the_mean_over_cases(folder: Path) -> None:
    run = read_study(folder).runs[0]
    # ct/p: 0.4 + 0.1 step, ct/q: 0.2 + 0.1 step
    assert validation_points(run, "ct", "liver_dice") == pytest.approx({2: 0.5, 4: 0.7})
    assert validation_points(run, "ct", "tumour_dice") == {}


def test_curves_of_folds_need_a_step(folder: Path, tmp_path: Path) -> None:
    runs = read_study(folder).runs
    assert draw_folds(runs[:3], tmp_path / "a.png")
    assert not draw_folds([r for r in runs if r.variant == "exchange_dropout"], tmp_path / "b.png")
    assert not (tmp_path / "b.png").exists()
    assert draw_folds(runs[:1], tmp_path / "c.png")
    assert pixels(tmp_path / "a.png").shape == pixels(tmp_path / "c.png").shape
    assert (pixels(tmp_path / "a.png") != pixels(tmp_path / "c.png")).any()


def test_a_run_shows_the_soft_dice_where_it_was_recorded(tmp_path: Path) -> None:
    found = []
    for name, more in (("without", {}), ("with", {"dice_ct": 0.5, "dice_mr": 0.6})):
        run = tmp_path / name
        rows = [{"step": s, "lr": 1, "ct": 1 / s, "mr": 1, **more} for s in (1, 2)]
        write_rows(run / "steps.csv", rows)
        found.append(pixels(draw_curves(run)))
    assert (found[0] != found[1]).any()


def test_the_slice_has_most_tumour_else_most_liver() -> None:
    label = label_of("ct/a")
    assert fullest(label) == 3
    healthy = label_of("ct/b")
    healthy[2, 0, 0] = 1
    assert fullest(healthy) == 2
    assert fullest(np.zeros(SHAPE, np.uint8)) == SHAPE[0] // 2


def test_a_slice_hangs_as_radiologists_hang_it_and_is_cropped() -> None:
    label = np.zeros((4, 100, 120), np.uint8)
    label[1, 50:60, 40:60] = 1
    far = np.zeros_like(label)
    far[1, 52, 10] = 2
    array = np.arange(label.size, dtype=np.int32).reshape(label.shape)
    # Voxel x runs to the patient's right: hung, it is turned round.
    affine = np.diag([-2.0, 2.0, 5.0, 1.0])
    piece = take_slice(Volume(array, affine, "ct"), label, [far, None])
    reference, other, none = piece.masks
    assert none is None
    assert reference is not None
    assert other is not None
    # rows 50 - 10 to 59 + 10; columns from x = 59 + 10 down to x = 10 - 10
    assert piece.image.shape == (30, 70)
    assert piece.image[0, 0] == array[1, 40, 69]
    assert np.argwhere(other == 2).tolist() == [[12, 59]]
    assert np.count_nonzero(reference) == 200
    assert piece.spacing == (2.0, 2.0)


def test_liver_is_red_and_tumour_blue() -> None:
    mask = np.array([[0, 1, 2]], np.uint8)
    colours = painted(np.array([[0.0, 50.0, 50.0]]), mask, (0.0, 100.0))[0]
    assert colours[0].tolist() == [0, 0, 0]
    assert colours[1].argmax() == 0
    assert colours[2].argmax() == 2


def test_chosen_cases_reach_from_worst_to_best() -> None:
    def score(name: str, **values: float) -> Score:
        return Score(0, name, "ct", "full", values)

    livers = [score(f"l{n}", liver_dice=n / 40) for n in range(30)]
    tumours = [score(f"t{n}", liver_dice=0.9, tumour_dice=n / 5) for n in (2, 1)]
    names = [s.case for s in choose([*livers, *tumours])]
    assert len(names) == ROWS
    assert names[:2] == ["t1", "t2"]
    assert (names[2], names[-1]) == ("l0", "l29")
    assert len(choose(livers[:3])) == 3


@pytest.mark.parametrize(("modality", "cases"), [("ct", 4), ("mr", 3)])
def test_overlays_of_everything(
    folder: Path, tmp_path: Path, modality: Modality, cases: int
) -> None:
    found = draw_overlays(read_study(folder), modality, tmp_path, publishable=False)
    assert found.notes == ()
    assert len(found.cases) == cases
    drawn = pixels(tmp_path / f"overlays_{modality}.png")
    red = (drawn[..., 0] > drawn[..., 1] + 60) & (drawn[..., 0] > drawn[..., 2] + 60)
    blue = (drawn[..., 2] > drawn[..., 0] + 40) & (drawn[..., 2] > drawn[..., 1] + 20)
    assert red.sum() > 5000
    assert (blue.sum() > 500) == (modality == "ct")


def test_only_what_may_be_shown_is_published(folder: Path, tmp_path: Path) -> None:
    found = draw_overlays(read_study(folder), "ct", tmp_path, publishable=True)
    assert found.cases == ("ct/a",)
    assert found.notes == ("3 of 4 cases are left out: their licence allows no picture.",)


def test_missing_images_and_masks_are_said(
    make_plan: Callable[..., Path], folder: Path, tmp_path: Path
) -> None:
    study = read_study(folder)
    values = study.plan.config.model_dump(mode="json")
    values["data"]["root"] = str(tmp_path / "gone" / "images")
    nowhere = read_study(make_plan(tmp_path / "study", config=values))
    found = draw_overlays(nowhere, "ct", tmp_path, publishable=False)
    assert found.file is None
    assert "The images cannot be read: …/cases.json does not exist" in found.notes[0]
    empty = read_study(make_plan(tmp_path / "empty"))
    scored = SimpleNamespace(plan=empty.plan, folder=empty.folder, main=study.main,
                             methods=study.methods, scores=study.scores)  # fmt: skip
    found = draw_overlays(scored, "mr", tmp_path, publishable=False)  # type: ignore[arg-type]
    assert found.file is None
    assert found.notes == ("No mask was kept of mr/a, mr/b, mr/c.",)
