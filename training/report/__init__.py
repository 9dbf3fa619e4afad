"""What a run and a study have to show: learning curves, the paper's tables and pictures."""

from ..records import CASES_CSV, CURVES, STEPS_CSV, append_csv, forget_after, read_csv
from .curves import draw_curves
from .write import write_report

__all__ = [
    "CASES_CSV", "CURVES", "STEPS_CSV", "append_csv", "draw_curves", "forget_after", "read_csv",
    "write_report",
]  # fmt: skip
