"""ONNX Runtime: the CPU everywhere, CUDA where ``onnxruntime-gpu`` and a driver are installed.

TensorRT builds its engine for minutes at each start, so it runs only where it is asked for.
"""

from contextlib import redirect_stdout
from functools import cache
from importlib.util import find_spec
from io import StringIO
from pathlib import Path

import numpy as np
import onnxruntime as ort

from ..errors import BackendError
from ..types import Batch, ShapeZYX
from .base import INPUT, OUTPUT, EngineInfo, check_batch, engine_errors

_TENSORRT = "TensorrtExecutionProvider"
_DEVICES = {
    _TENSORRT: "tensorrt",
    "CUDAExecutionProvider": "cuda",
    "CPUExecutionProvider": "cpu",
}
_QUIET = 3  # errors only
_PROBE = bytes.fromhex(  # an ONNX graph of one Identity over one number
    "080812003a370a100a017812017922084964656e746974791201705a0f0a0178120a0a080801"
    "12040a020801620f0a0179120a0a08080112040a02080142040a001011"
)


class OnnxBackend:
    """f32 on the first device that loads: TensorRT if asked for, CUDA, the CPU."""

    engine = "onnxruntime"
    precision = "f32"

    def __init__(
        self, graph: Path, patch: ShapeZYX, threads: int | None, *, tensorrt: bool = False
    ) -> None:
        if tensorrt and _TENSORRT not in _providers():
            raise BackendError("TensorRT is not installed: pip install 'a-qcf-net[gpu]' tensorrt")
        providers = [p for p in _providers() if tensorrt or p != _TENSORRT]
        options = ort.SessionOptions()
        options.log_severity_level = _QUIET
        options.intra_op_num_threads = threads or 0
        self._patch = patch
        _load_cuda()
        with engine_errors(self.engine, f"loading {graph.name}"):
            self._session = ort.InferenceSession(str(graph), options, providers=providers)
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
    """This engine on this machine, with the devices that a session comes up on."""
    _load_cuda()
    with engine_errors("onnxruntime", "looking for devices"):
        probe = ort.InferenceSession(_PROBE, providers=_providers())
    devices = tuple(_DEVICES[provider] for provider in probe.get_providers())
    return EngineInfo("onnxruntime", True, devices, ("f32",), ort.__version__)


def has_gpu() -> bool:
    """Whether this wheel knows CUDA; it says so without a driver, too."""
    return "CUDAExecutionProvider" in _providers()


def _providers() -> list[str]:
    """In the order of preference. The wheel lists TensorRT without its libraries, too."""
    present = set(ort.get_available_providers())
    if find_spec("tensorrt") is None:
        present.discard(_TENSORRT)
    return [provider for provider in _DEVICES if provider in present]


@cache
def _load_cuda() -> None:
    """CUDA and cuDNN of NVIDIA's wheels, which no search path of the loader names. Nothing happens
    where they are not; the device that a session comes up on tells."""
    with redirect_stdout(StringIO()):
        ort.preload_dlls()
