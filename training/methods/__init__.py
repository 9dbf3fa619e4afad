"""What can be trained: A-QCF-Net and the baselines of section 4.1.3, behind one seam."""

from pathlib import Path
from typing import Protocol, runtime_checkable

from torch import Tensor, nn

from model.checkpoint import load_network, save_checkpoint
from model.errors import ConfigError
from model.network import AQCFNet
from model.types import Modality
from training.config import TrainConfig


@runtime_checkable
class Method(Protocol):
    """A module of both modalities.

    ``forward`` takes two ``(n, 1, z, y, x)`` patches and returns the logits of both;
    ``one_stream`` is what is deployed for one modality alone.
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
    raise ConfigError(f"method {config.method.name!r} is not known")


def save_weights(path: Path, net: nn.Module) -> None:
    """Write a method's weights."""
    if isinstance(net, AQCFNet):
        save_checkpoint(path, net)


def load_method(path: Path, config: TrainConfig) -> nn.Module:
    """Read what ``save_weights`` wrote for a run of ``config``."""
    return load_network(path)
