"""OpenVINO on the CPU: the quickest engine there, in f32 or bf16."""

from pathlib import Path
from threading import Lock

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
        self._lock = Lock()  # a request serves one caller at a time
        options = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": self.precision,
            **({"INFERENCE_NUM_THREADS": threads} if threads else {}),
        }
        with engine_errors(self.engine, f"compiling {graph.name}"):
            model = core.read_model(graph)
            model.reshape([1, 1, *patch])
            self._request = core.compile_model(model, "CPU", options).create_infer_request()

    @property
    def name(self) -> str:
        return f"openvino-cpu-{self.precision}"

    def logits(self, batch: Batch) -> Batch:
        check_batch(batch, self._patch)
        with self._lock, engine_errors(self.engine, "running a window"):
            return np.concatenate([self._one(window) for window in batch])

    def _one(self, window: Batch) -> Batch:
        tensor = ov.Tensor(np.ascontiguousarray(window[None]), shared_memory=True)
        self._request.infer([tensor])
        return np.array(self._request.get_tensor(OUTPUT).data, np.float32)


def describe() -> EngineInfo:
    """This engine on this machine."""
    core = ov.Core()
    device = str(core.get_property("CPU", "FULL_DEVICE_NAME"))
    version = ov.__version__.split("-")[0]
    return EngineInfo("openvino", True, ("cpu",), _precisions(core), f"{version}, {device}")


def _precisions(core: ov.Core) -> tuple[Precision, ...]:
    able = core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    return ("f32", "bf16") if "BF16" in able else ("f32",)
