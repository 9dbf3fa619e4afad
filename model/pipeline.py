"""The whole way from a volume to a measured mask."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np

from .backends.base import Backend
from .errors import ConfigError, OutOfMemoryError
from .measure import LesionLabels, Measurements, lesion_labels, measure
from .postprocess import Shown, postprocess
from .preprocess import Prepared, prepare, to_native
from .sliding import BATCH, slide
from .spec import ModelSpec, PostprocessRules, Profile
from .types import BACKGROUND, Affine, ImageArray, MaskArray, ShapeZYX
from .volume import Volume

Outcome: TypeAlias = Literal["lesion_found", "no_lesion", "not_evaluable"]
Progress: TypeAlias = Callable[[str, float], None]
"""Called with a stage of ``STAGES`` and the fraction of it done; may raise ``CancelledError``."""

STAGES = ("prepare", "inference", "restore", "postprocess", "measure")
SINGLE = "The engine ran out of memory; windows were run one by one."


@dataclass(frozen=True, eq=False)
class Result:
    """``mask``: on the native grid of the volume, whose ``affine`` it has; empty when the outcome
    is ``not_evaluable``. ``lesion_labels``: the lesion number of each voxel, None without lesions.
    ``applied``: what was done to get there: single windows for want of memory, what postprocessing
    changed. ``seconds``: per stage of ``STAGES``. ``engine``: the
    backend's name."""

    mask: MaskArray
    affine: Affine
    outcome: Outcome
    measurements: Measurements
    lesion_labels: LesionLabels | None
    applied: tuple[str, ...]
    seconds: dict[str, float]
    engine: str
    profile: str


def segment(
    volume: Volume,
    spec: ModelSpec,
    backend: Backend,
    *,
    profile: str | None = None,
    batch: int = BATCH,
    progress: Progress | None = None,
    shown: Shown | None = None,
) -> Result:
    """Segment liver and tumour and measure them.

    ``profile``: a sliding-window profile of ``spec``, its default when None. ``batch``: windows
    per call of the backend; where that is too much for its memory, single windows follow once, and
    ``applied`` says so. ``shown``: for a volume whose slices are not the acquired ones; what none
    of those shows is taken out. Raises ``ConfigError`` for an unknown profile or modality, what
    ``preprocess.prepare`` and the backend raise, and whatever ``progress`` raises to stop.
    """
    name = spec.default_profile if profile is None else profile
    chosen, rules = _settings(volume, spec, name)
    view, classes = spec.modalities[volume.modality], spec.network.classes
    clock = _Clock(progress)

    with clock.stage("prepare"):
        prepared = prepare(volume, view)
    with clock.stage("inference") as report:
        scores, said = _infer(prepared, view.patch, classes, chosen, backend, batch, report=report)
    with clock.stage("restore"):
        raw = to_native(scores, prepared)
        del scores, prepared
    with clock.stage("postprocess"):
        mask, applied = postprocess(raw, rules, volume.voxel_ml, shown)
        mask, evaluable, applied = _judge(mask, volume, rules, (*said, *applied))
    with clock.stage("measure"):
        labels = lesion_labels(mask)
        measurements = measure(mask, volume, labels)

    found = bool(measurements.lesions)
    return Result(
        mask=mask,
        affine=volume.affine,
        outcome=_outcome(evaluable, found),
        measurements=measurements,
        lesion_labels=labels if found else None,
        applied=applied,
        seconds=clock.seconds,
        engine=backend.name,
        profile=name,
    )


def _outcome(evaluable: bool, found: bool) -> Outcome:
    if not evaluable:
        return "not_evaluable"
    return "lesion_found" if found else "no_lesion"


def _settings(volume: Volume, spec: ModelSpec, name: str) -> tuple[Profile, PostprocessRules]:
    if volume.modality not in spec.modalities:
        raise ConfigError(f"the model {spec.id!r} does not know {volume.modality!r}")
    if name not in spec.profiles:
        raise ConfigError(
            f"the model {spec.id!r} has no profile {name!r}; it has {', '.join(spec.profiles)}"
        )
    return spec.profiles[name], spec.postprocess.get(volume.modality, PostprocessRules())


def _infer(
    prepared: Prepared,
    patch: ShapeZYX,
    classes: int,
    profile: Profile,
    backend: Backend,
    batch: int,
    *,
    report: Callable[[float], None],
) -> tuple[ImageArray, tuple[str, ...]]:
    """Blended logits, and what to tell: once more with single windows when a batch was too much
    for the memory. Only once, and not where windows were single before."""

    def run(batch: int) -> ImageArray:
        return slide(
            prepared.array,
            patch,
            profile.overlap,
            backend.logits,
            classes,
            batch=batch,
            skip_empty=profile.skip_empty,
            follow=profile.follow,
            progress=report,
        )

    try:
        return run(batch), ()
    except OutOfMemoryError:
        if batch == 1:
            raise
    return run(1), (SINGLE,)


def _judge(
    mask: MaskArray, volume: Volume, rules: PostprocessRules, applied: tuple[str, ...]
) -> tuple[MaskArray, bool, tuple[str, ...]]:
    """Too little liver is no result: the mask is emptied and the reason given."""
    liver_ml = int(np.count_nonzero(mask)) * volume.voxel_ml
    if liver_ml >= rules.min_liver_ml:
        return mask, True, applied
    reason = (
        f"Found {liver_ml:.1f} ml of liver, less than the {rules.min_liver_ml:g} ml that a "
        "result needs; the mask is empty."
    )
    return np.full_like(mask, BACKGROUND), False, (*applied, reason)


class _Clock:
    """Seconds per stage, and the progress callback at its start, its steps and its end."""

    def __init__(self, progress: Progress | None) -> None:
        self.seconds: dict[str, float] = {}
        self._progress = progress

    @contextmanager
    def stage(self, name: str) -> Iterator[Callable[[float], None]]:
        self._report(name, 0.0)
        start = time.perf_counter()  # what the callback waits for is not the stage's
        yield lambda fraction: self._report(name, fraction)
        self.seconds[name] = time.perf_counter() - start
        self._report(name, 1.0)

    def _report(self, name: str, fraction: float) -> None:
        if self._progress is not None:
            self._progress(name, fraction)
