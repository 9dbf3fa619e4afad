"""Inference engines: one Protocol, one file per engine, one chooser.

``auto`` takes ONNX Runtime where it runs on a GPU, else OpenVINO, else ONNX Runtime on the CPU, and
the backend's ``name`` says what it became. Engines are imported when asked for, not before.
"""

from importlib import import_module
from importlib.util import find_spec
from types import ModuleType

from ..errors import BackendError
from ..spec import WEIGHTS, ModelFolder
from ..types import Modality
from .base import Backend, Engine, EngineInfo, Precision

__all__ = ["Backend", "Engine", "EngineInfo", "Precision", "available_engines", "open_backend"]

_FILES = {"openvino": "openvino", "onnxruntime": "onnx", "tensorrt": "onnx", "torch": "torch"}
_WAY_OUT = {
    "openvino": "pip install openvino",
    "onnxruntime": "pip install onnxruntime",
    "tensorrt": "pip install 'a-qcf-net[gpu]'",
    "torch": "pip install 'a-qcf-net[train]'",
}


def open_backend(
    folder: ModelFolder,
    modality: Modality,
    engine: Engine = "auto",
    precision: Precision = "f32",
    threads: int | None = None,
) -> Backend:
    """The model's network for ``modality`` on ``engine``.

    ``precision``: ``bf16`` falls back to f32 where engine or machine has none, and ``name`` says
    so. ``threads``: CPU threads, the engine's choice when None. Raises ``BackendError`` when the
    engine is unknown, not installed or fails to load, or the model lacks the modality.
    """
    if modality not in folder.spec.modalities:
        raise BackendError(f"the model {folder.spec.id!r} has no {modality.upper()} part")
    if engine == "auto":
        return _automatic(folder, modality, precision, threads)
    module = _load(engine)
    graph, patch = folder.graph(modality), folder.spec.modalities[modality].patch
    backend: Backend
    if engine == "openvino":
        backend = module.OpenVinoBackend(graph, patch, precision, threads)
    elif engine == "torch":
        weights = folder.file(WEIGHTS)
        backend = module.TorchBackend.load(weights, modality, patch, precision, threads)
    else:
        backend = module.OnnxBackend(graph, patch, threads, tensorrt=engine == "tensorrt")
    return backend


def available_engines() -> tuple[EngineInfo, ...]:
    """What runs on this machine; torch is looked for, not imported."""
    infos = [_describe(engine) for engine in ("openvino", "onnxruntime")]
    torch = find_spec("torch") is not None
    detail = "installed; used when asked for by name" if torch else _WAY_OUT["torch"]
    return (*infos, EngineInfo("torch", torch, detail=detail))


def _automatic(
    folder: ModelFolder, modality: Modality, precision: Precision, threads: int | None
) -> Backend:
    """ONNX Runtime may list CUDA and yet come up on the CPU, where OpenVINO is quicker."""
    if find_spec("onnxruntime") is not None and _load("onnxruntime").has_gpu():
        backend = open_backend(folder, modality, "onnxruntime", precision, threads)
        if not backend.name.startswith("onnxruntime-cpu"):
            return backend
    engine: Engine = "openvino" if find_spec("openvino") is not None else "onnxruntime"
    return open_backend(folder, modality, engine, precision, threads)


def _load(engine: str) -> ModuleType:
    if engine not in _FILES:
        raise BackendError(f"no engine is called {engine!r}; there are auto, {', '.join(_FILES)}")
    try:
        return import_module(f".{_FILES[engine]}", __name__)
    except ImportError as error:
        raise BackendError(f"{engine} is not installed: {_WAY_OUT[engine]}") from error


def _describe(engine: str) -> EngineInfo:
    try:
        info: EngineInfo = _load(engine).describe()
    except BackendError as error:
        return EngineInfo(engine, False, detail=error.message)
    return info
