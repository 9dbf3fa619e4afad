"""A result as DICOM: SEG with its proof, and SR."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .dicom.pixels import LoadedSeries
    from .observability import StageTimer
    from .produce import Recipe, Report, Result


def write_dicom(
    series: "LoadedSeries",
    result: "Result",
    recipe: "Recipe",
    out: Path,
    timer: "StageTimer",
    report: "Report",
) -> Mapping[str, Any] | None:
    return None
