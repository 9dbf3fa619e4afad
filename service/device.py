"""How much memory there is where this process infers."""

import ctypes
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from .observability import Metrics

NVML: Final = "libnvidia-ml.so.1"  # comes with the driver
CGROUPS: Final = (
    Path("/sys/fs/cgroup/memory.max"),
    Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
)
MEMINFO: Final = Path("/proc/meminfo")


@dataclass(frozen=True)
class DeviceMemory:
    """``device``: ``cpu`` or ``gpu``. ``used_bytes``: by everybody; ``None`` where nobody tells."""

    device: str
    total_bytes: int
    used_bytes: int | None


def device_memory() -> DeviceMemory | None:
    """Of the first GPU where NVIDIA's driver shows one, else of the machine."""
    return gpu_memory() or machine_memory()


def engine_memory(engine: str) -> DeviceMemory | None:
    """Where ``engine``, a backend's name, computes: it may be the CPU of a machine with a GPU."""
    return machine_memory() if "-cpu" in engine else device_memory()


def gpu_memory(library: Any = None) -> DeviceMemory | None:
    """Of the first GPU; ``None`` without NVIDIA's driver. ``library``: NVML, in tests."""
    try:
        nvml = library or ctypes.CDLL(NVML)
    except OSError:
        return None
    handle, memory = ctypes.c_void_p(), _NvmlMemory()
    asked = (
        nvml.nvmlInit_v2()
        or nvml.nvmlDeviceGetHandleByIndex_v2(0, ctypes.byref(handle))
        or nvml.nvmlDeviceGetMemoryInfo(handle, ctypes.byref(memory))
    )
    return None if asked else DeviceMemory("gpu", int(memory.total), int(memory.used))


def machine_memory() -> DeviceMemory | None:
    """Of the machine, or what its container may use of it."""
    try:
        total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError):
        return None
    available = _available()
    used = None if available is None else max(0, total - available)
    return DeviceMemory("cpu", min([total, *_limits()]), used)


def measure(metrics: Metrics) -> None:
    """Refresh the gauges of this process' device."""
    memory = device_memory()
    if memory is None:
        return
    metrics.device_memory_bytes.labels(memory.device).set(memory.total_bytes)
    if memory.used_bytes is not None:
        metrics.device_memory_used_bytes.labels(memory.device).set(memory.used_bytes)


class _NvmlMemory(ctypes.Structure):
    _fields_ = [(name, ctypes.c_ulonglong) for name in ("total", "free", "used")]


def _available() -> int | None:
    try:
        lines = MEMINFO.read_text("ascii").splitlines()
    except OSError:
        return None
    found = [line.split()[1] for line in lines if line.startswith("MemAvailable:")]
    return int(found[0]) * 1024 if found else None


def _limits() -> list[int]:
    texts = [path.read_text("ascii").strip() for path in CGROUPS if path.is_file()]
    return [int(text) for text in texts if text.isdigit()]
