"""Several processes that train as one: their start, and what they tell each other."""

import os
from collections.abc import Sequence
from datetime import timedelta
from typing import Any, TypeVar

import torch
from lightning_fabric import Fabric
from lightning_fabric.strategies.ddp import DDPStrategy
from lightning_fabric.utilities.rank_zero import rank_zero_only
from torch import Tensor, distributed

from model.errors import ConfigError

from .config import TrainConfig
from .losses import Total, alone

T = TypeVar("T")
_PATIENCE = timedelta(hours=2)  # one process may be scoring a large case while the others wait


def launch(config: TrainConfig) -> Fabric:
    """Start the processes of a run; each goes on from here.

    On one machine the command runs again for every further device; over nodes ``torchrun`` or
    SLURM starts it. Raises ``ConfigError`` for what this machine does not have.
    """
    check_machine(config)
    fabric = Fabric(
        accelerator=config.accelerator,
        devices=config.devices,
        num_nodes=config.nodes,
        precision=config.precision,
        strategy=_strategy(config),
    )
    fabric.launch()
    return fabric


def check_machine(config: TrainConfig) -> None:
    """Raises ``ConfigError`` when the devices or the precision asked for are not here."""
    gpus = torch.cuda.device_count()
    wanted, devices = config.accelerator, config.devices
    if wanted in ("gpu", "cuda") and not gpus:
        raise ConfigError(f"accelerator {wanted!r}: torch finds no GPU here; choose cpu or auto")
    on_cpu = wanted == "cpu" or (wanted == "auto" and not gpus)
    there, kind = (os.cpu_count() or 1, "CPU cores") if on_cpu else (gpus, "GPUs")
    if devices > there and (on_cpu or wanted in ("gpu", "cuda", "auto")):
        raise ConfigError(f"devices {devices}: this machine has {there} {kind}")
    if on_cpu and config.precision == "16-mixed":
        raise ConfigError("precision '16-mixed' needs a GPU; choose bf16-mixed or 32-true")


def is_first() -> bool:
    """Whether this process is the one that prints and writes; known before ``launch`` too."""
    return int(getattr(rank_zero_only, "rank", 0)) == 0


def total_over(fabric: Fabric) -> Total:
    """The differentiable sum over the processes, for ``case_loss``."""
    return alone if fabric.world_size == 1 else _total


def mean_over(fabric: Fabric, own: Tensor) -> Tensor:
    """The mean of a scalar over the processes; no gradient."""
    if fabric.world_size == 1:
        return own
    whole = own.clone()
    distributed.all_reduce(whole)
    return whole / fabric.world_size


def gathered(fabric: Fabric, own: T) -> list[T]:
    """What every process has, in the order of their ranks."""
    if fabric.world_size == 1:
        return [own]
    everyone: list[Any] = [None] * fabric.world_size
    distributed.all_gather_object(everyone, own)
    return everyone


def dealt(fabric: Fabric, items: Sequence[T]) -> Sequence[T]:
    """This process's share: every n-th item."""
    return items[fabric.global_rank :: fabric.world_size]


def collected(hands: Sequence[Sequence[T]]) -> list[T]:
    """The items in their order again, from the shares of all."""
    count = sum(map(len, hands))
    return [hands[n % len(hands)][n // len(hands)] for n in range(count)]


def _strategy(config: TrainConfig) -> DDPStrategy | str:
    if config.devices * config.nodes == 1:
        return "auto"
    # A step without exchange leaves the fusion blocks' queries, keys, values and gates unused.
    idle = config.exchange_dropout > 0
    return DDPStrategy(find_unused_parameters=idle, timeout=_PATIENCE)


def _total(x: Tensor) -> Tensor:
    summed: Tensor = _Total.apply(x)  # type: ignore[no-untyped-call]
    return summed


class _Total(torch.autograd.Function):
    """Every process computes the same loss from the total, so the gradient of all their losses is
    theirs times their number; DDP's mean divides by it again: what remains is one process's
    gradient for the whole batch."""

    @staticmethod
    def forward(_: Any, x: Tensor) -> Tensor:
        whole = x.clone()
        distributed.all_reduce(whole)
        return whole

    @staticmethod
    def backward(_: Any, gradient: Tensor) -> Tensor:
        return gradient * distributed.get_world_size()
