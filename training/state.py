"""What a run is, between two steps, and its file."""

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.optim import AdamW
from torch.optim.lr_scheduler import ReduceLROnPlateau


@dataclass
class RunState:
    """All that a resumed run needs. ``average`` are the averaged weights, if they are kept;
    ``seconds`` the time spent, over all resumptions."""

    net: nn.Module
    optimiser: AdamW
    plateau: ReduceLROnPlateau
    average: nn.Module | None
    step: int = 0
    best: float = -1.0
    skipped: int = 0
    seconds: float = 0.0
    _counted: float = field(default_factory=time.monotonic, repr=False)

    @property
    def deployed(self) -> nn.Module:
        """The network that is validated and exported."""
        return self.average or self.net

    def save(self, path: Path, scaler: dict[str, Any]) -> None:
        """Write atomically: a kill leaves the previous state whole."""
        now = time.monotonic()
        self.seconds, self._counted = self.seconds + now - self._counted, now
        partial = path.with_suffix(".partial")
        torch.save({**self._tensors(), "scaler": scaler}, partial)
        partial.replace(path)

    def load(self, path: Path) -> dict[str, Any]:
        """Go back to a saved state, on the devices where the tensors are; returns the scaler's."""
        saved = torch.load(path, map_location="cpu", weights_only=True)
        self.net.load_state_dict(saved["net"])
        self.optimiser.load_state_dict(saved["optimiser"])
        self.plateau.load_state_dict(saved["plateau"])
        if self.average is not None:
            self.average.load_state_dict(saved["average"] or saved["net"])
        self.step, self.best, self.skipped = saved["step"], saved["best"], saved["skipped"]
        self.seconds = saved.get("seconds", 0.0)
        scaler: dict[str, Any] = saved.get("scaler", {})
        return scaler

    def follow(self, decay: float) -> None:
        """Move the averaged weights, if they are kept, towards the net's."""
        if self.average is None:
            return
        decay = min(decay, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            for kept, weight in zip(self.average.parameters(), self.net.parameters(), strict=True):
                kept.lerp_(weight.to(kept.device), 1 - decay)
            for buffer, new in zip(self.average.buffers(), self.net.buffers(), strict=True):
                buffer.copy_(new)  # a batch norm's running statistics are averages already

    def _tensors(self) -> dict[str, Any]:
        return {
            "net": self.net.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "plateau": self.plateau.state_dict(),
            "average": self.average.state_dict() if self.average else None,
            "step": self.step,
            "best": self.best,
            "skipped": self.skipped,
            "seconds": self.seconds,
        }
