"""What jobs are predicted to need, against what they were measured to need."""

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from model.spec import ModelSpec, load_model_folder
from service import admission, execute, intake
from service.admission import admit, expected
from service.cases import Grid
from service.container import Container
from service.domain import SubmitOptions, WorkerInfo
from service.errors import TooLargeForDeviceError
from service.settings import PACKAGED_MODELS
from service.uploads import Upload

CT = SubmitOptions("ct")
MIB, GIB = 1024**2, 1024**3
LAPTOP = 8 * GIB


@pytest.fixture(scope="module")
def small() -> ModelSpec:
    return load_model_folder(PACKAGED_MODELS / "small").spec


def ct(slices: int, itemsize: int = 2) -> Grid:
    return Grid((slices, 512, 512), np.diag([0.78, 0.78, 1.0, 1.0]), itemsize)


def with_settings(container: Container, **values: Any) -> Container:
    return replace(container, settings=container.settings.model_copy(update=values))


@pytest.mark.parametrize(
    ("slices", "batch", "measured_mib"),
    [  # benchmarks/memory.py: the process at rest and its highest peak above that
        (100, 1, 239 + 413),  # OpenVINO, which runs windows one by one
        (400, 1, 239 + 1108),
        (1000, 1, 272 + 2525),
        (100, 1, 269 + 612),  # ONNX Runtime
        (100, 4, 269 + 1220),
    ],
)
def test_predictions_lie_above_what_was_measured(
    small: ModelSpec, slices: int, batch: int, measured_mib: int
) -> None:
    need = expected(ct(slices), small, "ct", "balanced", batch)
    assert measured_mib * MIB < need.bytes < 1.5 * measured_mib * MIB


def test_a_thousand_slices_fit_a_laptop(small: ModelSpec) -> None:
    assert expected(ct(1000), small, "ct", "balanced").bytes < LAPTOP / 2


def test_more_of_anything_needs_more(small: ModelSpec) -> None:
    base = expected(ct(400), small, "ct", "balanced")
    assert expected(ct(500), small, "ct", "balanced").bytes > base.bytes
    assert expected(ct(400, itemsize=4), small, "ct", "balanced").bytes > base.bytes
    thorough = expected(ct(400), small, "ct", "paper")
    assert thorough.windows > 5 * base.windows
    assert thorough.seconds > base.seconds
    assert thorough.bytes == base.bytes
    single = expected(ct(400), small, "ct", "balanced", batch=1)
    assert single.engine_bytes < base.engine_bytes
    assert single.host_bytes == base.host_bytes


def test_what_cannot_fit_is_refused_before_a_job_exists(container: Container, ct_zip: Path) -> None:
    tiny = with_settings(container, device_memory_bytes=100 * MIB)
    with pytest.raises(TooLargeForDeviceError, match=r"0\.1 GiB") as caught:
        intake.submit(tiny, Upload((ct_zip,)), CT)
    assert caught.value.code == "too_large_for_device"
    assert container.jobs.page().jobs == ()
    assert container.artifacts.input_keys() == ()
    assert not list(container.artifacts.staging.iterdir())
    sample = container.metrics.registry.get_sample_value
    assert sample("aqcf_rejected_total", {"code": "too_large_for_device"}) == 1


def test_a_job_knows_its_prediction(container: Container, ct_zip: Path) -> None:
    job = intake.submit(container, Upload((ct_zip,)), CT)
    assert job.predicted_bytes is not None
    assert job.predicted_bytes > admission.AT_REST_BYTES
    folder = container.models.default()
    assert job.predicted_bytes > admission.window_bytes(folder.spec, "ct")
    assert job.notes == ()


def test_what_may_take_too_long_is_let_in_and_told(container: Container, ct_zip: Path) -> None:
    job = intake.submit(with_settings(container, job_soft_limit_s=0.5), Upload((ct_zip,)), CT)
    assert "quicker profile" in job.notes[0]
    execute.run(container, job.id)
    assert container.jobs.require(job.id).notes[0] == job.notes[0]


def worker(name: str, memory_bytes: int | None, device: str | None = "cpu") -> WorkerInfo:
    now = datetime.now(UTC)
    return WorkerInfo(name, "host", "openvino", device, memory_bytes, (), True, 0, now, now)


def deployed(container: Container, *workers: WorkerInfo) -> Container:
    for info in workers:
        container.workers.register(info)
    return with_settings(container, redis_url="redis://127.0.0.1:1/0")


def test_the_largest_worker_counts(container: Container, small: ModelSpec) -> None:
    weak = deployed(container, worker("a", GIB), worker("b", 2 * GIB))
    with pytest.raises(TooLargeForDeviceError, match=r"2\.0 GiB"):
        admit(weak, ct(1000), small, "ct", "balanced")
    strong = deployed(container, worker("c", LAPTOP))
    assert admit(strong, ct(1000), small, "ct", "balanced").bytes < LAPTOP


def test_a_gpu_holds_the_network_and_not_the_images(container: Container, small: ModelSpec) -> None:
    gpu = deployed(container, worker("a", GIB, device="gpu"))
    assert admit(gpu, ct(1000), small, "ct", "balanced").bytes > GIB
    container.workers.leave("a")
    with pytest.raises(TooLargeForDeviceError):
        admit(
            deployed(container, worker("b", 100 * MIB, device="gpu")),
            ct(100),
            small,
            "ct",
            "balanced",
        )


@pytest.mark.parametrize("workers", [(), (worker("a", None), worker("b", GIB))])
def test_where_nothing_is_known_jobs_are_tried(
    container: Container, small: ModelSpec, workers: tuple[WorkerInfo, ...]
) -> None:
    admit(deployed(container, *workers), ct(1000), small, "ct", "balanced")
