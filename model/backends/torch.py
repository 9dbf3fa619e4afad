"""PyTorch, for tests, benchmarks and explanations; the service runs without it."""

from pathlib import Path

import numpy as np
import torch
from torch import nn

from ..checkpoint import load_network
from ..types import Batch, Modality, ShapeZYX
from .base import EngineInfo, Precision, check_batch, engine_errors


class TorchBackend:
    """The pruned one-stream network of a checkpoint, on CUDA where there is one."""

    engine = "torch"

    def __init__(self, net: nn.Module, patch: ShapeZYX, precision: Precision = "f32") -> None:
        """``net``: a one-stream network, as ``AQCFNet.one_stream`` gives."""
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        self.precision: Precision = precision
        self._patch = patch
        self._net = net.eval().to(self.device)

    @classmethod
    def load(
        cls, weights: Path, modality: Modality, patch: ShapeZYX, precision: Precision,
        threads: int | None,
    ) -> "TorchBackend":  # fmt: skip
        """The stream of ``modality`` from a checkpoint."""
        if threads:
            torch.set_num_threads(threads)
        with engine_errors(cls.engine, f"loading {weights.name}"):
            return cls(load_network(weights).one_stream(modality), patch, precision)

    @property
    def name(self) -> str:
        return f"torch-{self.device}-{self.precision}"

    def logits(self, batch: Batch) -> Batch:
        check_batch(batch, self._patch)
        low = self.precision == "bf16"
        with (
            engine_errors(self.engine, "running a batch"),
            torch.inference_mode(),
            torch.autocast(self.device, torch.bfloat16, enabled=low),
        ):
            result = self._net(torch.from_numpy(batch).to(self.device))
            return np.asarray(result.float().cpu().numpy(), np.float32)


def describe() -> EngineInfo:
    """This engine on this machine."""
    devices = ("cuda", "cpu") if torch.cuda.is_available() else ("cpu",)
    return EngineInfo("torch", True, devices, ("f32", "bf16"), str(torch.__version__))
