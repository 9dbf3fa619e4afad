"""One visible training loop (algorithm 2), on lightning-fabric."""

from collections.abc import Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.optim import AdamW
from torch.optim.lr_scheduler import ReduceLROnPlateau

from model.errors import AqcfError, ConfigError
from model.types import MODALITIES

from .board import Board
from .config import OptimiserConfig, TrainConfig
from .data import Batch, Batches, Case, prefetch
from .evaluate import CaseScore, mean_dice, validate
from .losses import case_loss
from .methods import Distils, Method, build_method, save_weights
from .progress import Progress
from .ranks import collected, dealt, gathered, launch, mean_over, total_over
from .report import CASES_CSV, STEPS_CSV, append_csv, draw_curves, forget_after
from .sample import Sample
from .state import RunState

STATE, WEIGHTS, BEST = "state.pt", "last.safetensors", "best.safetensors"
_NO_CLIP = 1e9  # the norm is wanted even where nothing is clipped
_FREE_SKIPS = 100  # non-finite gradients that are forgiven before their share counts


class DivergedError(AqcfError):
    """The loss or a gradient is not finite."""

    code = "diverged"


@dataclass(frozen=True, eq=False)
class Session:
    """What the steps of one process work with. ``board`` is the first process's alone."""

    config: TrainConfig
    run: Path
    state: RunState
    fabric: Fabric
    network: Any
    optimiser: Any  # the fabric's wrappers of the state's network and optimiser
    board: Board | None


def fit(
    config: TrainConfig,
    samples: Sequence[Sample],
    validation: Sequence[Case],
    run: Path,
    progress: Progress,
    fabric: Fabric | None = None,
) -> nn.Module:
    """Train from where ``run`` stands to ``config.steps``; returns the network to deploy.

    A step is one update of the weights, from ``config.accumulate`` batches of every process.
    ``fabric``: the processes where they are started already. Raises ``ConfigError`` for samples or
    devices that cannot be trained with; ``DivergedError`` naming the cases when the loss is not
    finite, or when more than a tenth of the steps (and 100) had gradients that were not.
    """
    check_samples(samples, config)
    session = _open(config, run, fabric)
    state = session.state
    batches = Batches(samples, config, rank=session.fabric.global_rank)
    for group in _groups(batches, state.step, config):
        values = _step(session, group)
        state.step += 1
        progress.step(state.step, values)
        _log(session, values)
        epoch_ends = state.step % config.steps_per_epoch == 0 or state.step == config.steps
        if epoch_ends or state.step % config.checkpoint_every == 0:
            if epoch_ends:
                _validate(session, validation, progress)
            _save(session)
    if session.board is not None:
        session.board.close()
    return state.deployed


def check_samples(samples: Sequence[Sample], config: TrainConfig) -> None:
    """Raises ``ConfigError`` for a modality without a case, a patch that is mostly padding in every
    case, and patches that two fused streams cannot share."""
    for modality in MODALITIES:
        sizes = [s.image.shape for s in samples if s.modality == modality and not s.borrowed]
        if not sizes:
            raise ConfigError(f"no {modality} case is left to train on")
        patch, largest = config.modalities[modality].patch, tuple(map(max, *sizes, (0, 0, 0)))
        if any(side > 2 * size for side, size in zip(patch, largest, strict=True)):
            raise ConfigError(
                f"{modality} patch {patch} is more than twice the largest case {largest} (z, y, x "
                "voxels): choose a smaller patch or spacing"
            )
    ct, mr = (config.modalities[m].patch for m in MODALITIES)
    if ct != mr and config.method.name == "aqcf":
        raise ConfigError(f"the streams exchange maps: patches of ct {ct} and mr {mr} must be one")


def _groups(batches: Batches, step: int, config: TrainConfig) -> Iterator[list[Batch]]:
    """The batches of each step from ``step`` on."""
    size, group = config.accumulate, []
    for _, batch in prefetch(batches, step * size, config.steps * size):
        group.append(batch)
        if len(group) == size:
            yield group
            group = []


def _open(config: TrainConfig, run: Path, fabric: Fabric | None = None) -> Session:
    """Start the processes, build the network, go back to the run's last checkpoint."""
    fabric = fabric or launch(config)
    state = _new_state(config)
    network, optimiser = fabric.setup(state.net, state.optimiser)
    if state.average is not None:
        state.average.to(fabric.device)
    # Only now: the optimiser's moments follow its parameters to their device while they load.
    if (run / STATE).is_file():
        fabric.strategy.precision.load_state_dict(state.load(run / STATE))
    board = None
    if fabric.is_global_zero:
        forget_after(run / STEPS_CSV, state.step)
        forget_after(run / CASES_CSV, state.step)
        board = Board(run, state.step) if state.step < config.steps else None
    return Session(config, run, state, fabric, network, optimiser, board)


def _new_state(config: TrainConfig) -> RunState:
    torch.manual_seed(config.seed)
    net = build_method(config)
    if config.checkpoint_activations:
        _recompute(net, config)
    rule = config.optimiser
    optimiser = AdamW(net.parameters(), lr=rule.lr, weight_decay=rule.weight_decay)
    plateau = ReduceLROnPlateau(optimiser, "max", factor=rule.factor, patience=rule.patience)
    return RunState(net, optimiser, plateau, deepcopy(net) if rule.ema else None)


@runtime_checkable
class _Recomputes(Protocol):
    """A network that can drop its activations and compute them again in the backward pass."""

    recompute: bool


def _recompute(net: nn.Module, config: TrainConfig) -> None:
    if not isinstance(net, _Recomputes):
        raise ConfigError(f"checkpoint_activations: method {config.method.name!r} cannot")
    net.recompute = True


def _step(session: Session, group: Sequence[Batch]) -> dict[str, float]:
    """One step of algorithm 2; the gradient is the mean of the group's. What it returns, too."""
    _set_lr(session)
    session.optimiser.zero_grad()
    seen: dict[str, float] = {}
    for number, batch in enumerate(group, 1):
        # The processes share their gradients once, after the last batch.
        with session.fabric.no_backward_sync(session.network, enabled=number < len(group)):
            for name, value in _backward(session, batch, len(group)).items():
                seen[name] = seen.get(name, 0.0) + value / len(group)
    _update(session, group)
    return seen


def _backward(session: Session, batch: Batch, of: int) -> dict[str, float]:
    """Add a batch's part of the step's gradient; returns its losses and Dice."""
    fabric, config = session.fabric, session.config
    images = [fabric.to_device(batch.images[m]) for m in MODALITIES]
    labels = {m: fabric.to_device(batch.labels[m]) for m in MODALITIES}
    logits = dict(zip(MODALITIES, session.network(*images, batch.exchange), strict=True))
    over = total_over(fabric)
    losses = {
        m: case_loss(logits[m], labels[m], batch.quality[m], config.pseudo_weight, over)
        for m in MODALITIES
    }
    total = losses["ct"].value + losses["mr"].value  # eq. 12
    seen: dict[str, Tensor] = {m: losses[m].value for m in MODALITIES}
    seen |= {f"dice_{m}": losses[m].dice for m in MODALITIES}
    if isinstance(session.state.net, Distils):
        extra = session.state.net.extra_loss(logits, labels)
        total = total + extra
        seen["extra"] = mean_over(fabric, extra.detach())
    values = dict(zip(seen, torch.stack([v.detach() for v in seen.values()]).tolist(), strict=True))
    if not all(map(isfinite, values.values())):
        raise DivergedError(f"{_where(session, [batch])}: the loss is {total.item()}")
    fabric.backward(total / of if of > 1 else total)
    return values


def _update(session: Session, group: Sequence[Batch]) -> None:
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
        state.follow(rule.ema)
        return
    state.skipped += 1
    if state.skipped > _FREE_SKIPS + state.step // 10:
        where = _where(session, group)
        raise DivergedError(f"{where}: {state.skipped} gradients were not finite")


def _where(session: Session, group: Sequence[Batch]) -> str:
    """The step and its cases, of all processes: all of them stop here."""
    parts = gathered(session.fabric, [batch.cases for batch in group])
    cases = {m: [name for part in parts for c in part for name in c[m]] for m in MODALITIES}
    return f"step {session.state.step}, cases {cases}"


def _log(session: Session, values: dict[str, float]) -> None:
    if session.board is not None:
        rate = float(session.optimiser.param_groups[0]["lr"])
        row = {"lr": rate, **values}
        append_csv(session.run / STEPS_CSV, [{"step": session.state.step, **row}])
        session.board.step(session.state.step, row)


def _validate(session: Session, cases: Sequence[Case], progress: Progress) -> None:
    """Score the held-out cases through the deployed pipeline, each process some of them; keep the
    best weights. Without held-out cases the last weights are the best there are."""
    state, fabric, net = session.state, session.fabric, session.state.deployed
    if not isinstance(net, Method):
        raise TypeError(type(net).__name__)
    own = dealt(fabric, cases)
    hand = validate(net, own, session.config, progress.validating) if own else []
    scores = collected(gathered(fabric, hand))
    score = mean_dice(scores) if scores else None
    if score is not None:
        state.plateau.step(score)
    better = score is None or score > state.best
    state.best = state.best if score is None else max(state.best, score)
    if session.board is not None:
        _record(session, scores, better)
        session.board.validated(state.step, scores)
        if scores:
            progress.validated(state.step, scores)


def _record(session: Session, scores: Sequence[CaseScore], better: bool) -> None:
    state, run = session.state, session.run
    append_csv(run / CASES_CSV, [{"step": state.step, **score.row()} for score in scores])
    for name in (WEIGHTS, BEST) if better else (WEIGHTS,):
        save_weights(run / name, state.deployed)
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


__all__ = ["BEST", "STATE", "WEIGHTS", "CaseScore", "DivergedError", "RunState", "fit", "trapezoid"]
