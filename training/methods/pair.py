"""Two networks, one per modality, in one loop: what the baselines have in common."""

from collections.abc import Callable
from copy import deepcopy

from torch import Tensor, is_grad_enabled, nn
from torch.utils.checkpoint import checkpoint

from model.types import MODALITIES, Modality

from .blueprint import Blueprint, StreamPlan
from .networks import build_network


class Pair(nn.Module):
    """``nets`` holds a network per modality; either maps ``(n, 1, z, y, x)`` to logits.

    ``recompute``: the backward pass runs each network once more, so that the activations of only
    one of them are kept at a time.
    """

    def __init__(self, plan: Blueprint, of: Callable[[Modality], StreamPlan]) -> None:
        super().__init__()
        self.blueprint = plan
        self.nets = nn.ModuleDict({m: build_network(of(m)) for m in MODALITIES})
        self.recompute = False

    def forward(self, ct: Tensor, mr: Tensor, exchange: bool = True) -> tuple[Tensor, Tensor]:  # noqa: ARG002
        """Two ``(n, 1, z, y, x)`` patches to their logits; there is nothing to ``exchange``."""
        return self._run("ct", ct), self._run("mr", mr)

    def one_stream(self, modality: Modality) -> nn.Module:
        """A copy of one modality's network, in evaluation mode."""
        return deepcopy(self.nets[modality]).eval()

    def _run(self, modality: Modality, image: Tensor) -> Tensor:
        net, again = self.nets[modality], self.recompute and is_grad_enabled()
        logits: Tensor = checkpoint(net, image, use_reentrant=False) if again else net(image)
        return logits


class UnimodalPair(Pair):
    """Two independent networks of one kind.

    Their losses are added and share no weight, so each has the gradient it would have alone, and
    AdamW treats every weight by itself. Two things couple them: a gradient is clipped by the norm
    over both networks, and a plateau schedule and the choice of the best weights follow the mean
    Dice of both modalities.
    """

    def __init__(self, plan: Blueprint) -> None:
        super().__init__(plan, plan.stream)
