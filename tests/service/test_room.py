"""What jobs take where they run: their batches, and their shares of memory and device."""

import threading
import time
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from model.backends import open_backend
from model.sliding import BATCH
from model.spec import ModelSpec
from model.types import Batch
from service import execute, intake
from service.admission import AT_REST_BYTES, ENGINE_BYTES, window_bytes
from service.container import Container
from service.domain import Job, Priority, Stage, Status, SubmitOptions
from service.room import Host, Room, room_of, room_on
from service.uploads import Upload

MIB, GIB = 1024**2, 1024**3
PLACE = Fraction(1, 2)
IMAGES = 300 * MIB
AT_REST = AT_REST_BYTES + ENGINE_BYTES


@pytest.fixture
def submit(container: Container, tmp_path: Path, made: Any) -> Callable[..., Job]:
    def make(seed: int = 1, priority: Priority = Priority.ROUTINE) -> Job:
        path = made.nifti(tmp_path / f"{seed}.nii", made.phantom(seed=seed))
        return intake.submit(container, Upload((path,)), SubmitOptions("ct", priority=priority))

    return make


@pytest.fixture
def spec(container: Container) -> ModelSpec:
    return container.models.default().spec


@pytest.fixture
def window(spec: ModelSpec) -> int:
    """Bytes of one window in the engine."""
    return window_bytes(spec, "ct")


@pytest.fixture
def job(submit: Callable[..., Job], window: int) -> Job:
    return replace(submit(), predicted_bytes=AT_REST + IMAGES + window)


def cpu(engine: str, total: int | None) -> Host:
    return Host(engine, total, total, apart=False, place=PLACE)


def gpu(device: int | None, host: int | None = 64 * GIB) -> Host:
    return Host("onnxruntime-cuda-f32", device, host, apart=True, place=PLACE)


def test_on_a_cpu_images_and_windows_share_one_memory(
    job: Job, spec: ModelSpec, window: int
) -> None:
    room = room_on(cpu("onnxruntime-cpu-f32", 4 * GIB), job, spec)
    left = 4 * GIB - AT_REST
    assert room == Room(BATCH, Fraction(IMAGES + BATCH * window, left), PLACE)


def test_openvino_runs_single_windows_whatever_the_batch(
    job: Job, spec: ModelSpec, window: int
) -> None:
    exactly = AT_REST + IMAGES + window
    assert room_on(cpu("openvino-cpu-f32", exactly), job, spec) == Room(BATCH, Fraction(1), PLACE)
    room = room_on(cpu("openvino-cpu-bf16", 4 * GIB), job, spec)
    assert room.memory == Fraction(IMAGES + window, 4 * GIB - AT_REST)


def test_too_much_for_full_batches_goes_window_by_window(
    job: Job, spec: ModelSpec, window: int
) -> None:
    enough = AT_REST + IMAGES + BATCH * window
    assert room_on(cpu("onnxruntime-cpu-f32", enough), job, spec).batch == BATCH
    short = room_on(cpu("onnxruntime-cpu-f32", enough - 1), job, spec)
    assert short.batch == 1
    assert short.memory == Fraction(IMAGES + window, enough - 1 - AT_REST)


def test_after_a_death_windows_are_single(job: Job, spec: ModelSpec) -> None:
    again = replace(job, deaths=1)
    assert room_on(cpu("onnxruntime-cpu-f32", 64 * GIB), again, spec).batch == 1
    assert room_on(gpu(64 * GIB), again, spec).batch == 1


def test_a_gpu_holds_windows_and_the_host_images(job: Job, spec: ModelSpec, window: int) -> None:
    room = room_on(gpu(ENGINE_BYTES + 5 * window, AT_REST_BYTES + 2 * IMAGES), job, spec)
    assert room == Room(BATCH, Fraction(1, 2), Fraction(4, 5))
    assert room_on(gpu(ENGINE_BYTES + 400 * window), job, spec).place == PLACE
    assert room_on(gpu(ENGINE_BYTES + 3 * window), job, spec).batch == 1


def test_where_nothing_is_known_nothing_is_waited_for(job: Job, spec: ModelSpec) -> None:
    assert room_on(cpu("onnxruntime-cpu-f32", None), job, spec) == Room(BATCH, Fraction(0), PLACE)
    assert room_on(gpu(None, None), job, spec) == Room(BATCH, Fraction(0), PLACE)


def test_a_need_that_is_not_known_or_too_much_takes_all(job: Job, spec: ModelSpec) -> None:
    unknown = replace(job, predicted_bytes=None)
    assert room_on(cpu("onnxruntime-cpu-f32", 64 * GIB), unknown, spec).memory == 1
    assert room_on(cpu("onnxruntime-cpu-f32", 1), job, spec) == Room(1, Fraction(1), PLACE)


def test_the_setting_is_the_part_of_this_process(
    container: Container, job: Job, spec: ModelSpec, window: int
) -> None:
    told = limited(container, AT_REST + 2 * (IMAGES + window))
    assert room_of(told, job, spec, "openvino-cpu-f32").memory == Fraction(1, 2)


def limited(container: Container, limit: int, **values: Any) -> Container:
    values["device_memory_bytes"] = limit
    return replace(container, settings=container.settings.model_copy(update=values))


class Counting:
    """Answers as the real engine does; calls ``first`` with each job's first batch."""

    name, engine, precision = "openvino-cpu-f32", "openvino", "f32"

    def __init__(self, container: Container, first: Callable[[int], None]) -> None:
        folder = container.models.find(None, "ct")
        self._real = open_backend(folder, "ct", "onnxruntime", threads=1)
        self._first = first
        self._seen: list[int] = []

    def logits(self, batch: Batch) -> Batch:
        if threading.get_ident() not in self._seen:
            self._seen.append(threading.get_ident())
            self._first(len(self._seen))
        return self._real.logits(batch)


def until(condition: Callable[[], bool], seconds: float = 15.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.01)


def started(container: Container, job: Job) -> threading.Thread:
    thread = threading.Thread(target=execute.run, args=(container, job.id))
    thread.start()
    return thread


def need_of(job: Job) -> int:
    assert job.predicted_bytes is not None
    return job.predicted_bytes - AT_REST


def test_two_jobs_too_large_together_run_one_after_the_other(
    container: Container, submit: Callable[..., Job]
) -> None:
    first, second = submit(1), submit(2)
    threads: list[threading.Thread] = []
    seen: list[tuple[Status, Status]] = []

    def arrive(number: int) -> None:
        if number == 1:
            threads.append(started(shared, second))
            until(lambda: shared.memory.waiting == 1)
            until(lambda: container.jobs.require(second.id).stage is Stage.WAIT)
        seen.append((status(first), status(second)))

    def status(job: Job) -> Status:
        return container.jobs.require(job.id).status

    tight = limited(container, AT_REST + need_of(first) + need_of(second) - 1)
    engine = Counting(container, arrive)
    shared = replace(tight, open_backend=lambda *_: engine)
    execute.run(shared, first.id)
    threads[0].join()
    assert seen == [(Status.RUNNING,) * 2, (Status.SUCCEEDED, Status.RUNNING)]
    done = container.jobs.require(second.id)
    assert done.status is Status.SUCCEEDED
    assert done.seconds["wait"] > 0
    assert (shared.memory.busy, shared.memory.waiting) == (0, 0)


def test_two_jobs_that_fit_together_do_not_wait_for_memory(
    container: Container, submit: Callable[..., Job]
) -> None:
    first, second = submit(1), submit(2)
    threads: list[threading.Thread] = []

    def arrive(number: int) -> None:
        if number == 1:
            threads.append(started(shared, second))
            until(lambda: shared.lane.waiting == 1)
            assert (shared.memory.busy, shared.memory.waiting) == (2, 0)

    roomy = limited(container, AT_REST + need_of(first) + need_of(second))
    engine = Counting(container, arrive)
    shared = replace(roomy, open_backend=lambda *_: engine)
    execute.run(shared, first.id)
    threads[0].join()
    for job in (first, second):
        assert container.jobs.require(job.id).status is Status.SUCCEEDED


def test_cancelled_while_it_waits_for_memory(
    container: Container, submit: Callable[..., Job]
) -> None:
    job = submit()
    ticket = container.memory.enter(Priority.ROUTINE, lambda: None, Fraction(1))
    thread = started(limited(container, job.predicted_bytes or 0), job)
    until(lambda: container.memory.waiting == 1)
    container.jobs.cancel(job.id)
    thread.join()
    assert container.jobs.require(job.id).status is Status.CANCELLED
    assert (container.memory.busy, container.memory.waiting) == (1, 0)
    container.memory.leave(ticket)
