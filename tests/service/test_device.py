"""The memory of this machine, and of a GPU through a library that answers as NVIDIA's does."""

import ctypes
import os
from typing import Any

import pytest

from service.device import device_memory, gpu_memory, machine_memory, measure
from service.observability import Metrics


class Nvml:
    """``code``: what every call returns; 0 is success."""

    def __init__(self, code: int = 0) -> None:
        self.code = code

    def nvmlInit_v2(self) -> int:  # noqa: N802
        return self.code

    def nvmlDeviceGetHandleByIndex_v2(self, index: int, _handle: Any) -> int:  # noqa: N802
        assert index == 0
        return self.code

    def nvmlDeviceGetMemoryInfo(self, _handle: Any, memory: Any) -> int:  # noqa: N802
        numbers = ctypes.cast(memory, ctypes.POINTER(ctypes.c_ulonglong))
        numbers[0], numbers[1], numbers[2] = 80, 50, 30
        return self.code


def test_a_gpu_tells_of_itself() -> None:
    found = gpu_memory(Nvml())
    assert found is not None
    assert (found.device, found.total_bytes, found.used_bytes) == ("gpu", 80, 30)


def test_a_driver_without_a_gpu_is_none() -> None:
    assert gpu_memory(Nvml(code=9)) is None


def test_the_machine_tells_of_itself() -> None:
    found = machine_memory()
    assert found is not None
    physical = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert 0 < found.total_bytes <= physical
    assert found.used_bytes is None or 0 < found.used_bytes < physical


def test_the_gauges_tell_of_the_device() -> None:
    metrics = Metrics()
    measure(metrics)
    memory = device_memory()
    if memory is None:
        pytest.skip("this system tells nobody")
    labels = {"device": memory.device}
    sample = metrics.registry.get_sample_value
    assert sample("aqcf_device_memory_bytes", labels) == memory.total_bytes
