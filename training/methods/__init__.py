"""What can be trained: A-QCF-Net and the baselines of section 4.1.3, behind one seam."""

from pathlib import Path
from typing import Protocol, runtime_checkable

from torch import Tensor, nn

from model.checkpoint import load_network, save_checkpoint
from model.network import AQCFNet
from model.types import Modality

from ..config import TrainConfig
from .blueprint import Blueprint, blueprint
from .distillation import UnpairedDistillation
from .pair import Pair, UnimodalPair
from .weights import load_tensors, read_blueprint, save_tensors


@runtime_checkable
class Method(Protocol):
    """A module of both modalities.

    ``forward`` takes two ``(n, 1, z, y, x)`` patches, of the sizes in ``config.modalities``, and
    returns the logits ``(n, classes, z, y, x)`` of both. ``one_stream`` is what is deployed for
    one modality alone; it maps one patch to its logits.
    """

    def forward(self, ct: Tensor, mr: Tensor, exchange: bool = True) -> tuple[Tensor, Tensor]: ...

    def one_stream(self, modality: Modality) -> nn.Module: ...


@runtime_checkable
class Distils(Protocol):
    """A method that couples the modalities by one more term of the step's loss.

    ``logits``: ``(n, classes, z, y, x)``, ``labels``: ``(n, z, y, x)`` integers, per modality. A
    scalar, already weighted; it may be zero where the two patches share no class.
    """

    def extra_loss(
        self, logits: dict[Modality, Tensor], labels: dict[Modality, Tensor]
    ) -> Tensor: ...


def build_method(config: TrainConfig) -> nn.Module:
    """The untrained network of ``config.method``; its weights follow torch's seed."""
    if config.method.name == "aqcf":
        return AQCFNet(config.network)
    return _baseline(blueprint(config))


def save_weights(path: Path, net: nn.Module) -> None:
    """Write a method's weights with what rebuilds it; a kill leaves the previous file whole.

    Raises ``TypeError`` for a network that ``build_method`` did not make.
    """
    if isinstance(net, AQCFNet):
        save_checkpoint(path, net)
    elif isinstance(net, Pair):
        save_tensors(path, net, net.blueprint)
    else:
        raise TypeError(f"{type(net).__name__} is not a method")


def load_method(path: Path, config: TrainConfig) -> nn.Module:
    """Read what ``save_weights`` wrote for a run of ``config``; in evaluation mode.

    Raises ``ModelFolderError`` when the file is not of ``config.method`` and the run's patches.
    """
    if config.method.name == "aqcf":
        return load_network(path)
    net = _baseline(read_blueprint(path, blueprint(config)))
    load_tensors(path, net)
    return net.eval()


def _baseline(plan: Blueprint) -> Pair:
    return UnpairedDistillation(plan) if plan.method.name == "unpaired_kd" else UnimodalPair(plan)


__all__ = ["Distils", "Method", "build_method", "load_method", "save_weights"]
