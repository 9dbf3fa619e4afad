"""The run on TensorBoard: what the CSV files hold, as curves."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from torch.utils.tensorboard import SummaryWriter

from .evaluate import CaseScore

BOARD = "tensorboard"


class Board:
    """Writes event files below a run. Points after ``step``, of a run that was killed, are purged:
    they come again."""

    def __init__(self, run: Path, step: int) -> None:
        self._writer = SummaryWriter(run / BOARD, purge_step=step + 1)

    def step(self, step: int, row: Mapping[str, float]) -> None:
        for name, value in row.items():
            self._writer.add_scalar(f"train/{name}", value, step)

    def validated(self, step: int, scores: Sequence[CaseScore]) -> None:
        for score in scores:
            self._writer.add_scalar(f"liver_dice/{score.case}", score.liver_dice, step)
            if score.tumour_dice is not None:
                self._writer.add_scalar(f"tumour_dice/{score.case}", score.tumour_dice, step)
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()
