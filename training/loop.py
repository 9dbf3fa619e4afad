"""One visible training loop (algorithm 2), on lightning-fabric."""

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import nn
from torch.optim import AdamW
from torch.optim.lr_scheduler import ReduceLROnPlateau

from model.checkpoint import save_checkpoint
from model.errors import AqcfError
from model.network import AQCFNet
from model.types import MODALITIES

from .config import OptimiserConfig, TrainConfig
from .data import Batch, Batches, Case, prefetch
from .evaluate import CaseScore, mean_dice, validate
from .losses import case_loss
from .progress import Progress
from .report import CASES_CSV, STEPS_CSV, append_csv, draw_curves, forget_after
from .sample import Sample

STATE, WEIGHTS, BEST = "state.pt", "last.safetensors", "best.safetensors"
_NO_CLIP = 1e9  # the norm is wanted even where nothing is clipped
_FREE_SKIPS = 100  # non-finite gradients that are forgiven before their share counts


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
    skipped: int = 0

    @property
    def deployed(self) -> AQCFNet:
        """The network that is validated and exported."""
        return self.average or self.net

    def save(self, path: Path, scaler: dict[str, Any]) -> None:
        """Write atomically: a kill leaves the previous state whole."""
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
        scaler: dict[str, Any] = saved.get("scaler", {})
        return scaler

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


@dataclass(frozen=True, eq=False)
class Session:
    """What the steps of one process work with."""

    config: TrainConfig
    run: Path
    state: RunState
    fabric: Fabric
    network: nn.Module
    optimiser: Any  # the fabric's wrappers of the state's network and optimiser


def fit(
    config: TrainConfig,
    samples: Sequence[Sample],
    validation: Sequence[Case],
    run: Path,
    progress: Progress,
) -> AQCFNet:
    """Train from where ``run`` stands to ``config.steps``; returns the network to deploy.

    Raises ``DivergedError`` naming the cases when the loss is not finite, or when more than a
    tenth of the steps (and 100) had gradients that were not.
    """
    session = _open(config, run)
    state = session.state
    batches = Batches(samples, config, rank=session.fabric.global_rank)
    for step, batch in prefetch(batches, state.step, config.steps):
        losses = _step(session, batch)
        state.step = step + 1
        progress.step(state.step, losses)
        epoch_ends = state.step % config.steps_per_epoch == 0 or state.step == config.steps
        if epoch_ends or state.step % config.checkpoint_every == 0:
            _log(session, losses)
            if epoch_ends:
                _validate(session, validation, progress)
            _save(session)
    return state.deployed


def _open(config: TrainConfig, run: Path) -> Session:
    """Start the processes, build the network, go back to the run's last checkpoint."""
    fabric = Fabric(
        accelerator=config.accelerator,
        devices=config.devices,
        precision=config.precision,
        strategy=_strategy(config),
    )
    fabric.launch()
    state = _new_state(config)
    network, optimiser = fabric.setup(state.net, state.optimiser)
    if state.average is not None:
        state.average.to(fabric.device)
    # Only now: the optimiser's moments follow its parameters to their device while they load.
    if (run / STATE).is_file():
        fabric.strategy.precision.load_state_dict(state.load(run / STATE))
    if fabric.is_global_zero:
        forget_after(run / STEPS_CSV, state.step)
        forget_after(run / CASES_CSV, state.step)
    return Session(config, run, state, fabric, network, optimiser)


def _strategy(config: TrainConfig) -> str:
    if config.devices == 1:
        return "auto"
    # A step without exchange leaves the fusion blocks' queries, keys, values and gates unused.
    return "ddp_find_unused_parameters_true" if config.exchange_dropout else "ddp"


def _new_state(config: TrainConfig) -> RunState:
    torch.manual_seed(config.seed)
    net = AQCFNet(config.network)
    rule = config.optimiser
    optimiser = AdamW(net.parameters(), lr=rule.lr, weight_decay=rule.weight_decay)
    plateau = ReduceLROnPlateau(optimiser, "max", factor=rule.factor, patience=rule.patience)
    return RunState(net, optimiser, plateau, deepcopy(net) if rule.ema else None)


def _step(session: Session, batch: Batch) -> dict[str, float]:
    """One step of algorithm 2."""
    _set_lr(session)
    fabric = session.fabric
    ct, mr = (fabric.to_device(batch.images[m]) for m in MODALITIES)
    logits = dict(zip(MODALITIES, session.network(ct, mr, batch.exchange), strict=True))
    losses = {
        m: case_loss(
            logits[m],
            fabric.to_device(batch.labels[m]),
            batch.quality[m],
            session.config.pseudo_weight,
        )
        for m in MODALITIES
    }
    total = losses["ct"] + losses["mr"]  # eq. 12
    if not torch.isfinite(total):
        where = f"step {session.state.step}, cases {batch.cases}"
        raise DivergedError(f"{where}: the loss is {total.item()}")
    session.optimiser.zero_grad()
    fabric.backward(total)
    _update(session, batch)
    return {m: losses[m].item() for m in MODALITIES}


def _update(session: Session, batch: Batch) -> None:
    """The optimiser's step; one whose gradient is not finite changes no weight."""
    state, fabric, rule = session.state, session.fabric, session.config.optimiser
    norm = fabric.clip_gradients(
        session.network,
        session.optimiser,
        max_norm=rule.clip_norm or _NO_CLIP,
        error_if_nonfinite=False,
    )
    finite = norm is not None and bool(torch.isfinite(norm))
    if finite or fabric.strategy.precision.state_dict():
        session.optimiser.step()  # a loss scaler skips by itself, and must see the overflow
    if finite:
        _average(state, rule.ema)
        return
    state.skipped += 1
    if state.skipped > _FREE_SKIPS + state.step // 10:
        where = f"step {state.step}, cases {batch.cases}"
        raise DivergedError(f"{where}: {state.skipped} gradients were not finite")


def _log(session: Session, losses: dict[str, float]) -> None:
    if session.fabric.is_global_zero:
        rate = session.optimiser.param_groups[0]["lr"]
        row = {"step": session.state.step, "lr": float(rate), **losses}
        append_csv(session.run / STEPS_CSV, [row])


def _validate(session: Session, cases: Sequence[Case], progress: Progress) -> None:
    """Score the held-out cases through the deployed pipeline; keep the best weights.

    Without held-out cases the last weights are the best there are.
    """
    state, fabric = session.state, session.fabric
    scores: list[CaseScore] = []
    if fabric.is_global_zero:
        scores = validate(state.deployed, cases, session.config, progress.validating)
    score: float | None = fabric.broadcast(mean_dice(scores) if scores else None)
    if score is not None:
        state.plateau.step(score)
    better = score is None or score > state.best
    state.best = state.best if score is None else max(state.best, score)
    if fabric.is_global_zero:
        _record(session, scores, better)
        if scores:
            progress.validated(state.step, scores)


def _record(session: Session, scores: Sequence[CaseScore], better: bool) -> None:
    state, run = session.state, session.run
    append_csv(run / CASES_CSV, [{"step": state.step, **score.row()} for score in scores])
    for name in (WEIGHTS, BEST) if better else (WEIGHTS,):
        save_checkpoint(run / name, state.deployed)
    draw_curves(run)


def _save(session: Session) -> None:
    if session.fabric.is_global_zero:
        session.state.save(session.run / STATE, session.fabric.strategy.precision.state_dict())


def _set_lr(session: Session) -> None:
    rule = session.config.optimiser
    if rule.schedule == "trapezoid":
        for group in session.optimiser.param_groups:
            group["lr"] = trapezoid(rule, session.state.step, session.config.steps)


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
        for kept, new in zip(state.average.parameters(), state.net.parameters(), strict=True):
            kept.lerp_(new.to(kept.device), 1 - decay)


__all__ = ["BEST", "STATE", "WEIGHTS", "CaseScore", "DivergedError", "RunState", "fit", "trapezoid"]
