"""The room a job takes where it runs: windows per call of the engine, and shares of the memory.

The jobs of one process run together as long as what they are predicted to need fits into the
memory that the process may use; a job that has to wait for others to end is not refused. Other
processes are not counted: where several share a device, ``AQCF_DEVICE_MEMORY_BYTES`` is the part of
each.
"""

from dataclasses import dataclass
from fractions import Fraction
from typing import Final

from model.sliding import BATCH
from model.spec import ModelSpec

from .admission import AT_REST_BYTES, ENGINE_BYTES, window_bytes
from .container import Container
from .device import DeviceMemory, engine_memory, machine_memory
from .domain import Job

WHOLE: Final = Fraction(1)
NOTHING: Final = Fraction(0)
SINGLE_WINDOWS: Final = "openvino"  # whatever batch it is given


@dataclass(frozen=True)
class Room:
    """``batch``: windows per call. ``memory``: the share of the memory that jobs of this process
    have, from before the images are read to the end. ``place``: the share of the device, while the
    job infers."""

    batch: int
    memory: Fraction
    place: Fraction


@dataclass(frozen=True)
class Host:
    """Where jobs run. ``engine``: the backend's name. ``device_bytes``: of the device, or the part
    that this process may use. ``host_bytes``: of the machine. ``None``: nobody knows. ``apart``:
    the device has a memory of its own. ``place``: the least share of the device that a job takes.
    """

    engine: str
    device_bytes: int | None
    host_bytes: int | None
    apart: bool
    place: Fraction


def room_of(container: Container, job: Job, spec: ModelSpec, engine: str) -> Room:
    """What ``job`` takes in this process, on the loaded ``engine`` (a backend's name)."""
    return room_on(_here(container, engine), job, spec)


def room_on(host: Host, job: Job, spec: ModelSpec) -> Room:
    """What ``job`` takes on ``host``: single windows where full batches are predicted to be too
    much, or where a worker died on the job before; all of the memory where its need is not known.
    """
    window = window_bytes(spec, job.modality)
    full = 1 if host.engine.startswith(SINGLE_WINDOWS) else BATCH
    images = None
    if job.predicted_bytes is not None:
        images = max(0, job.predicted_bytes - AT_REST_BYTES - ENGINE_BYTES - window)
    batch = BATCH if not job.deaths and _fits(host, images, full * window) else 1
    maps = min(batch, full) * window
    if not host.apart:
        needed = None if images is None else images + maps
        return Room(batch, _share(needed, _left(host.device_bytes, _at_rest(host))), host.place)
    place = max(host.place, _share(maps, _left(host.device_bytes, ENGINE_BYTES)))
    return Room(batch, _share(images, _left(host.host_bytes, AT_REST_BYTES)), place)


def _here(container: Container, engine: str) -> Host:
    machine, device = machine_memory(), engine_memory(engine)
    told = container.settings.device_memory_bytes
    return Host(
        engine=engine,
        device_bytes=told or _total(device),
        host_bytes=_total(machine),
        apart=device is not None and device.device != "cpu",
        place=container.lane.place,
    )


def _total(memory: DeviceMemory | None) -> int | None:
    return None if memory is None else memory.total_bytes


def _fits(host: Host, images: int | None, maps: int) -> bool:
    left = _left(host.device_bytes, _at_rest(host))
    return left is None or maps + (0 if host.apart else images or 0) <= left


def _at_rest(host: Host) -> int:
    """What is on the device before a job comes."""
    return ENGINE_BYTES if host.apart else ENGINE_BYTES + AT_REST_BYTES


def _left(total: int | None, at_rest: int) -> int | None:
    return None if total is None else max(0, total - at_rest)


def _share(needed: int | None, left: int | None) -> Fraction:
    """Nothing of a memory whose size is not known; all of it for a need that is not known."""
    if left is None:
        return NOTHING
    if needed is None or needed >= left:
        return WHOLE
    return Fraction(needed, left)
