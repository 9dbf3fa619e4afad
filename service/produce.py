"""From a loaded case to result files in a folder: the same for a job and for the command line."""

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from model.nifti import write_nifti
from model.pipeline import Result, segment
from model.render import preview
from model.sliding import BATCH
from model.spec import ModelFolder

from .cases import LoadedCase
from .dicom.pixels import LoadedSeries
from .dicom.sr import MAX_LESIONS
from .domain import ArtifactName, Finding, Outcome, Stage
from .observability import StageTimer
from .reports import SegFile, write_seg, write_sr

if TYPE_CHECKING:
    from model.backends.base import Backend


Report: TypeAlias = Callable[[Stage, float], None]
"""Called with a stage and the fraction of it done; may raise ``CancelledError``."""


@dataclass(frozen=True)
class Recipe:
    """``uid_key``: what the UIDs of the written DICOM objects are derived from. ``batch``: windows
    per call of the engine."""

    model: ModelFolder
    profile: str
    uid_key: str
    batch: int = BATCH


def produce(
    case: LoadedCase, recipe: Recipe, backend: "Backend", out: Path, report: Report
) -> Finding:
    """Segment, measure, and write every result into ``out`` by its ``ArtifactName``.

    DICOM input gives SEG (proved against the mask) and SR, any input mask, measurements and
    preview. Raises what ``model.pipeline.segment`` raises, and ``SegMismatchError``.
    """
    clock = _Clock(report)
    result = segment(
        case.volume,
        recipe.model.spec,
        backend,
        profile=recipe.profile,
        batch=recipe.batch,
        progress=lambda stage, fraction: report(Stage(stage), fraction),
        shown=case.series.shown if case.series else None,
    )
    seg = None if case.series is None else _write_dicom(case.series, result, recipe, out, clock)
    with clock.stage(Stage.STORE):
        _write_files(case, result, recipe, out)
    return Finding(
        outcome=Outcome(result.outcome),
        measurements=result.measurements.to_dict(),
        seconds=result.seconds | clock.seconds,
        engine=result.engine,
        applied=result.applied,
        proof=seg.proof.to_dict() if seg else None,
        notes=(*case.notes, *(seg.sources.notes if seg else ()), *_left_out(result, seg)),
    )


def _left_out(result: Result, seg: SegFile | None) -> Iterator[str]:
    count = len(result.measurements.lesions)
    if seg is not None and count > MAX_LESIONS:
        yield f"The report lists the {MAX_LESIONS} largest of {count} lesions."


class _Clock(StageTimer):
    """Tells of each stage as it begins."""

    def __init__(self, report: Report) -> None:
        super().__init__()
        self._report = report

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        self._report(Stage(name), 0.0)
        with super().stage(name):
            yield


def _write_dicom(
    loaded: LoadedSeries, result: Result, recipe: Recipe, out: Path, clock: _Clock
) -> SegFile:
    spec, key = recipe.model.spec, recipe.uid_key
    with clock.stage(Stage.SEG):
        seg = write_seg(loaded, result, spec, key, out / ArtifactName.SEG)
    with clock.stage(Stage.SR):
        write_sr(loaded, result, spec, key, seg=seg, path=out / ArtifactName.SR)
    return seg


def _write_files(case: LoadedCase, result: Result, recipe: Recipe, out: Path) -> None:
    write_nifti(out / ArtifactName.MASK, result.mask, result.affine)
    (out / ArtifactName.PREVIEW).write_bytes(preview(case.volume, result.mask))
    text = json.dumps(_summary(result, recipe), indent=2, ensure_ascii=False)
    (out / ArtifactName.MEASUREMENTS).write_text(text + "\n", encoding="utf-8")


def _summary(result: Result, recipe: Recipe) -> Mapping[str, Any]:
    return {
        "outcome": result.outcome,
        "measurements": result.measurements.to_dict(),
        "applied": list(result.applied),
        "model": {"id": recipe.model.spec.id, "version": recipe.model.spec.version,
                  "sha256": recipe.model.sha256},
        "profile": result.profile,
        "engine": result.engine,
    }  # fmt: skip
