"""Rows of a run on disk, and the curves drawn from them."""

from pathlib import Path

import numpy as np
from PIL import Image

from training.records import append_csv, forget_after, read_csv
from training.report import draw_curves


def log(run: Path, steps: int) -> None:
    for step in range(1, steps + 1):
        append_csv(run / "steps.csv", [{"step": step, "lr": 1, "ct": 2 / step, "mr": 3 / step}])
        dice = {"step": step, "case": "ct/a", "liver_dice": 1 - 1 / step}
        append_csv(run / "validation.csv", [dice])


def test_rows_after_the_checkpoint_are_forgotten(tmp_path: Path) -> None:
    log(tmp_path, 5)
    forget_after(tmp_path / "steps.csv", 3)
    forget_after(tmp_path / "absent.csv", 3)
    assert [row["step"] for row in read_csv(tmp_path / "steps.csv")] == ["1", "2", "3"]
    forget_after(tmp_path / "steps.csv", 0)
    assert read_csv(tmp_path / "steps.csv") == []


def test_curves_show_the_run(tmp_path: Path) -> None:
    """More is drawn the longer it ran, and in colour."""
    pictures = []
    for name, steps in (("empty", 0), ("long", 30)):
        run = tmp_path / name
        run.mkdir()
        log(run, steps)
        pictures.append(np.asarray(Image.open(draw_curves(run)).convert("RGB"), int))
    empty, drawn = pictures
    assert drawn.shape[1] > 800
    coloured = [(np.ptp(picture, axis=-1) > 60).sum() for picture in (empty, drawn)]
    assert coloured[1] > coloured[0] + 500
