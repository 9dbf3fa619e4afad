import dataclasses
import time

import numpy as np
import pytest

from model.errors import CancelledError, ConfigError, OutOfMemoryError
from model.metrics import dice
from model.pipeline import SINGLE, STAGES, segment
from model.spec import ModelSpec, PostprocessRules
from model.volume import Volume


def centroid_mm(mask: np.ndarray, affine: np.ndarray) -> np.ndarray:
    return (affine @ [*np.argwhere(mask).mean(axis=0)[::-1], 1])[:3]


def test_the_phantom_is_found(phantom, spec: ModelSpec, backend) -> None:
    result = segment(phantom.volume, spec, backend)
    assert dice(result.mask > 0, phantom.mask > 0) > 0.97
    assert dice(result.mask == 2, phantom.mask == 2) > 0.9
    assert result.outcome == "lesion_found"
    assert result.mask.shape == phantom.volume.shape
    assert result.mask.dtype == np.uint8
    assert len(result.measurements.lesions) == 2
    assert result.lesion_labels is not None
    assert result.lesion_labels.max() == 2
    assert list(result.seconds) == list(STAGES)
    assert (result.engine, result.profile) == ("fake-cpu-f32", "balanced")
    assert result.measurements.lesions[0].intensity_mean == pytest.approx(150, abs=5)


@pytest.mark.parametrize("orientation", ["LPS", "RAS", "LAS", "RPI", "SAR", "PIR", "ASL", "ILP"])
def test_the_mask_stays_in_its_place(turned, spec: ModelSpec, backend, orientation: str) -> None:
    stored = turned(orientation)
    result = segment(stored.volume, spec, backend, profile="fast")
    affine = stored.volume.affine
    for value in (1, 2):
        moved = centroid_mm(result.mask == value, affine) - centroid_mm(
            stored.mask == value, affine
        )
        assert np.linalg.norm(moved) < 1.0
    assert dice(result.mask > 0, stored.mask > 0) > 0.97


def test_mr_goes_the_same_way(phantom, spec: ModelSpec, backend) -> None:
    scanner = np.clip(phantom.volume.array + 20, 0, None).astype(np.float32) * 900
    result = segment(Volume(scanner, phantom.volume.affine, "mr"), spec, backend)
    assert dice(result.mask > 0, phantom.mask > 0) > 0.95
    assert result.measurements.intensity_unit == "1"


def test_no_lesion(phantom, spec: ModelSpec, backend) -> None:
    array = np.minimum(phantom.volume.array, 90)
    result = segment(Volume(array, phantom.volume.affine, "ct"), spec, backend)
    assert result.outcome == "no_lesion"
    assert result.lesion_labels is None
    assert result.measurements.lesions == ()


@pytest.mark.parametrize("top", [30, -1000])
def test_without_liver_it_is_not_evaluable(phantom, spec: ModelSpec, backend, top: int) -> None:
    array = np.minimum(phantom.volume.array, top)
    result = segment(Volume(array, phantom.volume.affine, "ct"), spec, backend)
    assert result.outcome == "not_evaluable"
    assert not result.mask.any()
    assert result.measurements.liver_ml == 0.0
    assert "less than the 50 ml" in result.applied[-1]


def test_too_little_liver_empties_the_mask(phantom, spec: ModelSpec, backend) -> None:
    rules = {"ct": PostprocessRules(min_liver_ml=9000.0)}
    strict = spec.model_copy(update={"postprocess": rules})
    result = segment(phantom.volume, strict, backend)
    assert result.outcome == "not_evaluable"
    assert not result.mask.any()


def test_a_small_memory_gets_single_windows(phantom, spec: ModelSpec, backend) -> None:
    small = dataclasses.replace(backend, small_memory=True, batches=[])
    result = segment(phantom.volume, spec, small)
    assert result.outcome == "lesion_found"
    assert set(small.batches[small.batches.index(4) + 1 :]) == {1}
    assert result.applied[0] == SINGLE


def test_single_windows_are_tried_once(phantom, spec: ModelSpec, backend) -> None:
    calls: list[int] = []

    class Full:
        name, engine, precision = "full", "full", "f32"

        def logits(self, batch: np.ndarray) -> np.ndarray:
            calls.append(len(batch))
            raise OutOfMemoryError("nothing left")

    for batch, expected in ((4, [4, 1]), (1, [1])):
        calls.clear()
        with pytest.raises(OutOfMemoryError):
            segment(phantom.volume, spec, Full(), batch=batch)
        assert calls == expected


def test_waiting_in_the_callback_is_no_part_of_a_stage(phantom, spec: ModelSpec, backend) -> None:
    def wait(stage: str, fraction: float) -> None:
        if (stage, fraction) == ("measure", 0.0):
            time.sleep(1.0)

    assert segment(phantom.volume, spec, backend, progress=wait).seconds["measure"] < 1.0


def test_no_memory_at_all_is_told(phantom, spec: ModelSpec, backend) -> None:
    class Broken:
        name, engine, precision = "broken", "broken", "f32"

        def logits(self, batch: np.ndarray) -> np.ndarray:
            raise OutOfMemoryError(f"nothing left for {len(batch)}")

    with pytest.raises(OutOfMemoryError):
        segment(phantom.volume, spec, Broken())


def test_progress_names_every_stage_in_order(phantom, spec: ModelSpec, backend) -> None:
    heard: list[tuple[str, float]] = []
    segment(phantom.volume, spec, backend, progress=lambda *step: heard.append(step))
    assert list(dict(heard)) == list(STAGES)
    for stage in STAGES:
        fractions = [fraction for name, fraction in heard if name == stage]
        assert fractions[0] == 0.0
        assert fractions[-1] == 1.0
        assert fractions == sorted(fractions)


def test_progress_can_cancel(phantom, spec: ModelSpec, backend) -> None:
    def stop(stage: str, fraction: float) -> None:
        if stage == "inference" and fraction > 0:
            raise CancelledError("asked to stop")

    with pytest.raises(CancelledError):
        segment(phantom.volume, spec, backend, progress=stop)
    assert len(backend.batches) <= 2


def test_unknown_names_are_refused(phantom, spec: ModelSpec, backend) -> None:
    with pytest.raises(ConfigError, match="balanced, fast"):
        segment(phantom.volume, spec, backend, profile="best")
    only_mr = spec.model_copy(update={"modalities": {"mr": spec.modalities["mr"]}})
    with pytest.raises(ConfigError, match="'ct'"):
        segment(phantom.volume, only_mr, backend)
