"""One visible training loop (algorithm 2), on lightning-fabric."""

import os
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.optim import AdamW
from torch.optim.lr_scheduler import ReduceLROnPlateau

from model.checkpoint import save_checkpoint
from model.errors import AqcfError
from model.network import AQCFNet
from model.types import MODALITIES

from .config import OptimiserConfig, TrainConfig
from .data import Batch, Batches, Case, Sample, prefetch
from .evaluate import CaseScore, mean_dice, validate
from .losses import case_loss
from .progress import Progress
from .report import append_csv, draw_curves

STATE, WEIGHTS, BEST = "state.pt", "last.safetensors", "best.safetensors"
STEPS_CSV, CASES_CSV = "steps.csv", "validation.csv"


class DivergedError(AqcfError):
    """The loss or a gradient is not finite."""

    code = "diverged"


@dataclass
class RunState:
    """All that a resumed run needs. ``average`` are the averaged weights, if they are kept."""

    net: AQCFNet
    optimiser: AdamW
    plateau: ReduceLROnPlateau
    average: AQCFNet | None
    step: int = 0
    best: float = -1.0
    skipped: int = field(default=0)

    @property
    def deployed(self) -> AQCFNet:
        """The network that is validated and exported."""
        return self.average or self.net

    def save(self, path: Path) -> None:
        """Write atomically: a kill leaves the previous state whole."""
        partial = path.with_suffix(".partial")
        torch.save(self._tensors(), partial)
        os.replace(partial, path)

    def load(self, path: Path) -> None:
        saved = torch.load(path, map_location="cpu", weights_only=True)
        self.net.load_state_dict(saved["net"])
        self.optimiser.load_state_dict(saved["optimiser"])
        self.plateau.load_state_dict(saved["plateau"])
        if self.average is not None:
            self.average.load_state_dict(saved["average"] or saved["net"])
        self.step, self.best, self.skipped = saved["step"], saved["best"], saved["skipped"]

    def _tensors(self) -> dict[str, Any]:
        return {
            "net": self.net.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "plateau": self.plateau.state_dict(),
            "average": self.average.state_dict() if self.average else None,
            "step": self.step,
            "best": self.best,
            "skipped": self.skipped,
        }


def fit(
    config: TrainConfig,
    samples: list[Sample],
    validation: list[Case],
    run: Path,
    progress: Progress,
) -> AQCFNet:
    """Train from where ``run`` stands to ``config.steps``; returns the network to deploy.

    Raises ``DivergedError`` naming the cases when the loss is not finite, or when more than a
    tenth of the last steps had gradients that were not.
    """
    fabric = Fabric(
        accelerator=config.accelerator, devices=config.devices, precision=config.precision
    )
    fabric.launch()
    state = _start(config, run)
    network, optimiser = fabric.setup(state.net, state.optimiser)
    batches = Batches(samples, config, rank=fabric.global_rank)
    for step, batch in prefetch(batches, state.step, config.steps):
        losses = _step(fabric, network, optimiser, state, batch, config)
        state.step = step + 1
        progress.step(state.step, losses)
        if state.step % config.checkpoint_every == 0 or state.step == config.steps:
            if fabric.is_global_zero:
                append_csv(run / STEPS_CSV, [{"step": state.step, "lr": _lr(optimiser), **losses}])
            if state.step % config.steps_per_epoch == 0 or state.step == config.steps:
                _validate(state, validation, config, run, progress)
            if fabric.is_global_zero:
                state.save(run / STATE)
    return state.deployed


def _start(config: TrainConfig, run: Path) -> RunState:
    torch.manual_seed(config.seed)
    net = AQCFNet(config.network)
    rule = config.optimiser
    optimiser = AdamW(net.parameters(), lr=rule.lr, weight_decay=rule.weight_decay)
    plateau = ReduceLROnPlateau(optimiser, "max", factor=rule.factor, patience=rule.patience)
    state = RunState(net, optimiser, plateau, deepcopy(net) if rule.ema else None)
    if (run / STATE).is_file():
        state.load(run / STATE)
    return state


def _step(
    fabric: Fabric,
    network: nn.Module,
    optimiser: Any,
    state: RunState,
    batch: Batch,
    config: TrainConfig,
) -> dict[str, float]:
    """One step of algorithm 2; a step whose gradient is not finite changes nothing."""
    _set_lr(optimiser, config, state.step)
    images = {m: fabric.to_device(batch.images[m]) for m in MODALITIES}
    labels = {m: fabric.to_device(batch.labels[m]) for m in MODALITIES}
    logits = dict(zip(MODALITIES, network(images["ct"], images["mr"], batch.exchange), strict=True))
    losses = {
        m: case_loss(logits[m], labels[m], batch.quality[m], config.pseudo_weight) for m in MODALITIES
    }
    total = losses["ct"] + losses["mr"]  # eq. 12
    if not torch.isfinite(total):
        raise DivergedError(f"step {state.step}: the loss is {total.item()} for cases {batch.cases}")
    optimiser.zero_grad()
    fabric.backward(total)
    norm = nn.utils.clip_grad_norm_(state.net.parameters(), config.optimiser.clip_norm or 1e9)
    if torch.isfinite(norm):
        optimiser.step()
        _average(state, config.optimiser.ema)
    else:
        state.skipped += 1
        if state.skipped > 100 + state.step // 10:
            raise DivergedError(f"step {state.step}: {state.skipped} gradients were not finite")
    return {m: losses[m].item() for m in MODALITIES}


def _validate(
    state: RunState, cases: list[Case], config: TrainConfig, run: Path, progress: Progress
) -> None:
    """Score the held-out cases through the deployed pipeline; keep the best weights."""
    scores = validate(state.deployed, cases, config, progress.validating)
    score = mean_dice(scores)
    state.plateau.step(score)
    rows = [{"step": state.step, **s.row()} for s in scores]
    append_csv(run / CASES_CSV, rows)
    save_checkpoint(run / WEIGHTS, state.deployed)
    if score > state.best:
        state.best = score
        save_checkpoint(run / BEST, state.deployed)
    draw_curves(run)
    progress.validated(state.step, scores)


def _set_lr(optimiser: Any, config: TrainConfig, step: int) -> None:
    rule = config.optimiser
    if rule.schedule == "trapezoid":
        for group in optimiser.param_groups:
            group["lr"] = trapezoid(rule, step, config.steps)


def trapezoid(rule: OptimiserConfig, step: int, steps: int) -> float:
    """Linear warm-up, a plateau, a linear fall to zero over the last ``cooldown`` steps."""
    rise = min(1.0, (step + 1) / max(rule.warmup, 1))
    fall = min(1.0, (steps - step) / max(rule.cooldown, 1))
    return rule.lr * min(rise, fall)


def _average(state: RunState, decay: float) -> None:
    if state.average is None:
        return
    decay = min(decay, (1 + state.step) / (10 + state.step))
    with torch.no_grad():
        pairs: Iterator[tuple[Tensor, Tensor]] = zip(
            state.average.parameters(), state.net.parameters(), strict=True
        )
        for kept, new in pairs:
            kept.lerp_(new.to(kept.device), 1 - decay)


def _lr(optimiser: Any) -> float:
    return float(optimiser.param_groups[0]["lr"])


__all__ = ["BEST", "STATE", "WEIGHTS", "CaseScore", "DivergedError", "RunState", "fit", "trapezoid"]
