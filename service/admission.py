"""What a job will need, told before it exists: memory, windows, seconds.

Memory is meant as an upper bound: the whole field of view counts as body and all of the body as
liver. It was measured with ``python benchmarks/memory.py`` on Linux (``small``; 100, 400 and 1000
slices of 512 x 512; OpenVINO, and ONNX Runtime with batches of 1 and 4): the peak above a resting
process, stage by stage. The constants below are that with a tenth on top. Reading compressed slices
or float voxels was not measured; their arrays are counted by size. What a GPU needs for activations
is taken from ONNX Runtime on a CPU and was never measured on a GPU.

A wrong refusal is worse than a try, so a job is refused only where its need is above everything
the device has, with single windows, and where that much is known. How many windows there are at a
time is settled where the job runs, by the engine that is there (``room``).
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from math import prod
from typing import Final

from model.preprocess import MAX_VOXELS, largest_shape
from model.sliding import BATCH, window_count
from model.spec import ModelSpec
from model.types import Modality

from .cases import Grid
from .container import Container
from .device import machine_memory
from .domain import WorkerInfo
from .errors import TooLargeForDeviceError

MIB: Final = 1024**2
GIB: Final = 1024**3

AT_REST_BYTES: Final = 290 * MIB  # a process with everything imported
ENGINE_BYTES: Final = 160 * MIB  # an engine with ``small`` loaded
CLEANING_BYTES: Final = 8.2  # per native voxel beside the image: components of a mask
RESULT_BYTES: Final = 1.1  # per native voxel beside the image: the mask alone
LOGITS_BYTES: Final = 12.0  # per prepared voxel and class, in float32: scores, their copy
PREPARED_BYTES: Final = 12.0  # per prepared voxel: the image, weights
LIVE_MAPS: Final = 9.5  # feature maps of full resolution that live at once in a window
QUATERNION: Final = 4
SMALL: Final = 4  # width of ``small``, which was timed

AT_REST_S: Final = 2.0
NATIVE_S: Final = 6e-8  # per native voxel: reading, cleaning, SEG
WINDOW_S: Final = 3.5e-7  # per voxel of a window, f32, two cores of a server


@dataclass(frozen=True)
class Need:
    """``host_bytes``: arrays and the process. ``engine_bytes``: the network and one batch, on the
    device. ``windows``: at the most. ``seconds``: of a CPU with two cores, roughly. ``notes``: what
    to tell about it."""

    host_bytes: int
    engine_bytes: int
    windows: int
    seconds: float
    notes: tuple[str, ...] = ()

    @property
    def bytes(self) -> int:
        """All of it, where the device is the CPU."""
        return self.host_bytes + self.engine_bytes


def expected(
    grid: Grid, spec: ModelSpec, modality: Modality, profile: str, batch: int = BATCH
) -> Need:
    """What a case of this grid will need. ``batch``: windows per call of the engine."""
    view, width = spec.modalities[modality], spec.network.widths[0]
    native, window = prod(grid.shape), prod(view.patch)
    shape = largest_shape(grid.shape, grid.affine, view)
    windows = window_count(shape, view.patch, spec.profiles[profile].overlap)
    of_prepared = min(prod(shape), MAX_VOXELS) * (
        PREPARED_BYTES + LOGITS_BYTES * spec.network.classes
    )
    most = max(native * CLEANING_BYTES, native * RESULT_BYTES + of_prepared)
    slower = (width / SMALL) ** 2
    return Need(
        host_bytes=int(AT_REST_BYTES + native * grid.itemsize + most),
        engine_bytes=ENGINE_BYTES + batch * window_bytes(spec, modality),
        windows=windows,
        seconds=AT_REST_S + native * NATIVE_S + windows * window * WINDOW_S * slower,
    )


def window_bytes(spec: ModelSpec, modality: Modality) -> int:
    """What the engine needs for each window that it has at a time."""
    width, patch = spec.network.widths[0], spec.modalities[modality].patch
    return int(prod(patch) * 4 * QUATERNION * width * LIVE_MAPS)


def admit(container: Container, grid: Grid, spec: ModelSpec, modality: Modality, name: str) -> Need:
    """What a job is predicted to need at the least: with single windows.

    ``name``: of the profile. A job that may take longer than ``job_soft_limit_s`` is let in with a
    note: a GPU may be quick enough. Raises ``TooLargeForDeviceError`` where even single windows
    need more than any worker has.
    """
    need = expected(grid, spec, modality, name, batch=1)
    room = _room(container)
    if room and not any(place.fits(need) for place in room):
        most = max(place.bytes for place in room)
        raise TooLargeForDeviceError(
            f"the images need about {_gib(need.bytes)} of memory, the largest device has "
            f"{_gib(most)}; send thinner coverage or thicker slices, or set "
            "AQCF_DEVICE_MEMORY_BYTES if it has more"
        )
    return replace(need, notes=tuple(_slow(need, container.settings.job_soft_limit_s)))


@dataclass(frozen=True)
class _Place:
    """Somewhere a job could run. ``apart``: the device has a memory of its own."""

    bytes: int
    apart: bool = False

    def fits(self, need: Need) -> bool:
        return (need.engine_bytes if self.apart else need.bytes) <= self.bytes


def _room(container: Container) -> list[_Place]:
    """Where jobs can run; empty where that is not known."""
    settings = container.settings
    if settings.device_memory_bytes is not None:
        return [_Place(settings.device_memory_bytes)]
    if settings.redis_url is not None:
        return _of_workers(container.workers.alive(settings.heartbeat_timeout_s))
    memory = machine_memory()
    return [] if memory is None else [_Place(memory.total_bytes)]


def _of_workers(workers: Iterable[WorkerInfo]) -> list[_Place]:
    """Nothing is known as long as one worker does not tell."""
    places = [(worker.memory_bytes, worker.device not in (None, "cpu")) for worker in workers]
    if any(size is None for size, _ in places):
        return []
    return [_Place(size or 0, apart) for size, apart in places]


def _slow(need: Need, limit_s: float) -> Iterator[str]:
    if need.seconds > limit_s:
        yield (
            f"On a CPU this may take about {need.seconds:.0f} s, more than the limit of "
            f"{limit_s:g} s; a quicker profile may pass."
        )


def _gib(size: int) -> str:
    return f"{size / GIB:.1f} GiB"
