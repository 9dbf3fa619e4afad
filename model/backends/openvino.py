"""OpenVINO on the CPU: the quickest engine there, in f32 or bf16."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov

from ..types import Batch, ShapeZYX
from .base import OUTPUT, EngineInfo, Precision, check_batch, engine_errors


class OpenVinoBackend:
    """One window per call of the engine, compiled for exactly the patch: a static shape lets it
    choose its kernels, and a window fills the cores by itself."""

    engine = "openvino"

    def __init__(
        self, graph: Path, patch: ShapeZYX, precision: Precision, threads: int | None
    ) -> None:
        core = ov.Core()
        self.precision: Precision = precision if precision in _precisions(core) else "f32"
        self._patch = patch
        options = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": self.precision,
            **({"INFERENCE_NUM_THREADS": threads} if threads else {}),
        }
        with engine_errors(self.engine, f"compiling {graph.name}"):
            model = core.read_model(graph)
            model.reshape([1, 1, *patch])
            self._compiled = core.compile_model(model, "CPU", options)
            self._idle = [self._compiled.create_infer_request()]

    @property
    def name(self) -> str:
        return f"openvino-cpu-{self.precision}"

    def logits(self, batch: Batch) -> Batch:
        check_batch(batch, self._patch)
        with engine_errors(self.engine, "running a window"), self._request() as request:
            return np.concatenate([_one(request, window) for window in batch])

    @contextmanager
    def _request(self) -> Iterator[Any]:
        """One that serves no other caller now; one that failed is not used again."""
        try:
            request = self._idle.pop()
        except IndexError:
            request = self._compiled.create_infer_request()
        yield request
        self._idle.append(request)


def _one(request: Any, window: Batch) -> Batch:
    tensor = ov.Tensor(np.ascontiguousarray(window[None]), shared_memory=True)
    request.infer([tensor])
    return np.array(request.get_tensor(OUTPUT).data, np.float32)


def describe() -> EngineInfo:
    """This engine on this machine."""
    core = ov.Core()
    device = str(core.get_property("CPU", "FULL_DEVICE_NAME"))
    version = ov.__version__.split("-")[0]
    return EngineInfo("openvino", True, ("cpu",), _precisions(core), f"{version}, {device}")


def _precisions(core: ov.Core) -> tuple[Precision, ...]:
    able = core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    return ("f32", "bf16") if "BF16" in able else ("f32",)
