"""ONNX Runtime: the CPU everywhere, CUDA and TensorRT where ``onnxruntime-gpu`` is installed."""

from pathlib import Path

import numpy as np
import onnxruntime as ort

from ..types import Batch, ShapeZYX
from .base import INPUT, OUTPUT, EngineInfo, check_batch, engine_errors

_DEVICES = {
    "TensorrtExecutionProvider": "tensorrt",
    "CUDAExecutionProvider": "cuda",
    "CPUExecutionProvider": "cpu",
}
_QUIET = 3  # errors only


class OnnxBackend:
    """f32 on the first device that loads, in the order TensorRT, CUDA, CPU."""

    engine = "onnxruntime"
    precision = "f32"

    def __init__(self, graph: Path, patch: ShapeZYX, threads: int | None) -> None:
        options = ort.SessionOptions()
        options.log_severity_level = _QUIET
        options.intra_op_num_threads = threads or 0
        self._patch = patch
        with engine_errors(self.engine, f"loading {graph.name}"):
            self._session = ort.InferenceSession(str(graph), options, providers=_providers())
        self.device = _DEVICES[self._session.get_providers()[0]]

    @property
    def name(self) -> str:
        return f"onnxruntime-{self.device}-{self.precision}"

    def logits(self, batch: Batch) -> Batch:
        check_batch(batch, self._patch)
        with engine_errors(self.engine, "running a batch"):
            (result,) = self._session.run([OUTPUT], {INPUT: np.ascontiguousarray(batch)})
            return np.asarray(result, np.float32)


def describe() -> EngineInfo:
    """This engine on this machine."""
    devices = tuple(_DEVICES[provider] for provider in _providers())
    return EngineInfo("onnxruntime", True, devices, ("f32",), ort.__version__)


def has_gpu() -> bool:
    return "CUDAExecutionProvider" in _providers()


def _providers() -> list[str]:
    present = ort.get_available_providers()
    return [provider for provider in _DEVICES if provider in present]
