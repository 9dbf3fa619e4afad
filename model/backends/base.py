"""What every engine offers."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal, Protocol, TypeAlias

from ..errors import AqcfError, BackendBrokenError, BackendError, OutOfMemoryError
from ..types import Batch

Engine: TypeAlias = Literal["auto", "openvino", "onnxruntime", "tensorrt", "torch"]
Precision: TypeAlias = Literal["f32", "bf16"]

INPUT, OUTPUT = "image", "logits"  # of every exported graph
_MEMORY_WORDS = (
    "out of memory",
    "out_of_memory",
    "bad_alloc",
    "bad alloc",
    "failed to allocate",  # ONNX Runtime's arena
    "smaller than requested bytes",  # the same, with a limit of its own
    "alloc_failed",  # cuBLAS, cuDNN
    "allocate memory",  # the C library, PyTorch on the CPU
    "allocation_failure",  # OpenCL, below OpenVINO
    "max size of memory allocation",  # OpenVINO on a GPU
)
_BROKEN_WORDS = (
    "illegal memory access",
    "illegal instruction",
    "illegal address",
    "misaligned address",
    "invalid program counter",
    "hardware stack error",
    "unspecified launch failure",
    "launch timed out",
    "device-side assert",
    "uncorrectable ecc",
    "uncorrectable nvlink",
    "fallen off the bus",
    "device is lost",
    "driver shutting down",
    "context is destroyed",
    "no cuda-capable device",
    "cudnn_status_execution_failed",
    "cudnn_status_internal_error",
    "cudnn_status_mapping_error",
    "cublas_status_execution_failed",
    "cublas_status_internal_error",
    "cublas_status_mapping_error",
    "cl_device_not_available",
)


class Backend(Protocol):
    """A one-stream network on one engine.

    ``name`` says what runs, such as ``openvino-cpu-bf16``; ``precision`` is the one reached, which
    is ``f32`` where ``bf16`` was asked for and the machine has none.
    """

    @property
    def name(self) -> str: ...
    @property
    def engine(self) -> str: ...
    @property
    def precision(self) -> str: ...

    def logits(self, batch: Batch) -> Batch:
        """``(n, 1, z, y, x)`` float32 to ``(n, classes, z, y, x)`` float32, spatial shape that of
        the model's patch. Raises ``BackendError``, ``OutOfMemoryError``, ``BackendBrokenError``."""
        ...


@dataclass(frozen=True)
class EngineInfo:
    """One engine on this machine. ``detail``: version and device, or why it cannot run."""

    engine: str
    available: bool
    devices: tuple[str, ...] = ()
    precisions: tuple[str, ...] = ()
    detail: str = ""


@contextmanager
def engine_errors(engine: str, doing: str) -> Iterator[None]:
    """Turn whatever an engine raises into a ``BackendError``; engines share no error type.

    ``OutOfMemoryError``: a smaller batch may pass. ``BackendBrokenError``: CUDA keeps some errors
    for the life of a process, so that every later call fails too. Only the words tell them apart.
    """
    try:
        yield
    except AqcfError:
        raise
    except Exception as error:
        raise _typed(error, engine, doing) from error


def _typed(error: Exception, engine: str, doing: str) -> BackendError:
    text = str(error)
    if isinstance(error, MemoryError) or _says(text, _MEMORY_WORDS):
        return OutOfMemoryError(f"{engine} ran out of memory while {doing}")
    if _says(text, _BROKEN_WORDS):
        return BackendBrokenError(f"the device of {engine} broke down while {doing}")
    return BackendError(f"{engine} failed while {doing}: {text[:300]}")


def _says(text: str, words: tuple[str, ...]) -> bool:
    lowered = text.lower()
    return any(word in lowered for word in words)


def check_batch(batch: Batch, patch: tuple[int, ...]) -> None:
    """Refuse a batch whose shape the graph was not made for."""
    if batch.ndim != 5 or batch.shape[1:] != (1, *patch):
        raise BackendError(
            f"the batch has shape {batch.shape}; this model takes (n, 1, "
            f"{', '.join(str(side) for side in patch)})"
        )
