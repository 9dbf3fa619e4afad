"""A network for CT and one for MR, trained side by side."""

from copy import deepcopy

from torch import Tensor, nn

from model.types import MODALITIES, Modality

from .blueprint import Blueprint
from .networks import build_network


class UnimodalPair(nn.Module):
    """Two independent networks of one kind in one loop.

    Their losses are added and share no weight, so each has the gradient it would have alone, and
    AdamW treats every weight by itself. Two things couple them: a gradient is clipped by the norm
    over both networks, and a plateau schedule and the choice of the best weights follow the mean
    Dice of both modalities.
    """

    def __init__(self, plan: Blueprint) -> None:
        super().__init__()
        self.blueprint = plan
        self.nets = nn.ModuleDict({m: build_network(plan.stream(m)) for m in MODALITIES})

    def forward(self, ct: Tensor, mr: Tensor, exchange: bool = True) -> tuple[Tensor, Tensor]:  # noqa: ARG002
        """Two ``(n, 1, z, y, x)`` patches to their logits; there is nothing to ``exchange``."""
        return self.nets["ct"](ct), self.nets["mr"](mr)

    def one_stream(self, modality: Modality) -> nn.Module:
        """A copy of one modality's network, in evaluation mode."""
        return deepcopy(self.nets[modality]).eval()
