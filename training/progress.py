"""What a person sees of a run: a bar with losses and validation Dice, or plain lines in a log."""

import time

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar
from rich.table import Table

from .evaluate import CaseScore
from .ranks import is_first

_LINE_EVERY = 50


class Progress:
    """Shows the run; a context manager. On a terminal a bar, elsewhere a line now and then. Of
    several processes only the first speaks."""

    def __init__(self, steps: int, start: int = 0) -> None:
        self.console = Console(quiet=not is_first())
        self._bar = Bar(
            TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(),
            TimeRemainingColumn(), console=self.console, disable=not self.console.is_terminal,
        )  # fmt: skip
        self._task = self._bar.add_task("training", total=steps, completed=start)
        self._mean: dict[str, float] = {}
        self._began, self._start = time.monotonic(), start

    def __enter__(self) -> "Progress":
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def step(self, step: int, losses: dict[str, float]) -> None:
        for name, value in losses.items():
            self._mean[name] = 0.98 * self._mean.get(name, value) + 0.02 * value
        text = "  ".join(f"{name} {value:.3f}" for name, value in self._mean.items())
        text = text.replace("_", " ")
        self._bar.update(self._task, completed=step, description=f"loss {text}")
        if not self.console.is_terminal and step % _LINE_EVERY == 0:
            pace = (time.monotonic() - self._began) / max(step - self._start, 1)
            self.console.print(f"step {step}  loss {text}  {pace:.2f} s a step")

    def loading(self, done: int, total: int) -> None:
        self._bar.update(self._task, description=f"preparing case {done} of {total}")
        if not self.console.is_terminal and done == total:
            self.console.print(f"{total} cases prepared")

    def validating(self, case: str) -> None:
        self._bar.update(self._task, description=f"validating {case}")

    def validated(self, step: int, scores: list[CaseScore]) -> None:
        self.console.print(score_table(scores, f"validation at step {step}"))


def score_table(scores: list[CaseScore], title: str) -> Table:
    """A line per case."""
    table = Table("case", "liver Dice", "HD95 mm", "tumour Dice", title=title)
    for score in scores:
        tumour = "-" if score.tumour_dice is None else f"{score.tumour_dice:.3f}"
        table.add_row(score.case, f"{score.liver_dice:.3f}", f"{score.liver_hd95_mm:.1f}", tumour)
    return table
