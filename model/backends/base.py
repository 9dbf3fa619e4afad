"""What every engine offers."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal, Protocol, TypeAlias

from ..errors import AqcfError, BackendError, OutOfMemoryError
from ..types import Batch

Engine: TypeAlias = Literal["auto", "openvino", "onnxruntime", "tensorrt", "torch"]
Precision: TypeAlias = Literal["f32", "bf16"]

INPUT, OUTPUT = "image", "logits"  # of every exported graph
_MEMORY_WORDS = ("out of memory", "bad_alloc", "failed to allocate", "alloc_failed", "bad alloc")


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
        the model's patch. Raises ``BackendError``, ``OutOfMemoryError``."""
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
    """Turn whatever an engine raises into a ``BackendError``; engines share no error type."""
    try:
        yield
    except AqcfError:
        raise
    except MemoryError as error:
        raise OutOfMemoryError(f"{engine} ran out of memory while {doing}") from error
    except Exception as error:
        text = str(error)
        if any(word in text.lower() for word in _MEMORY_WORDS):
            raise OutOfMemoryError(f"{engine} ran out of memory while {doing}") from error
        raise BackendError(f"{engine} failed while {doing}: {text[:300]}") from error


def check_batch(batch: Batch, patch: tuple[int, ...]) -> None:
    """Refuse a batch whose shape the graph was not made for."""
    if batch.ndim != 5 or batch.shape[1:] != (1, *patch):
        raise BackendError(
            f"the batch has shape {batch.shape}; this model takes (n, 1, "
            f"{', '.join(str(side) for side in patch)})"
        )
