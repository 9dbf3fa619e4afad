"""The adaptive quaternion cross-fusion block (section 3.2.2, eq. 4-11, algorithm 1)."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from .layers import SLOPE, ConvBlock, RealConv, conv, conv_block
from .quaternion import QuaternionConv
from .spec import NetworkConfig


class Fused(NamedTuple):
    """Fused maps ``(n, 4C, z, y, x)`` and the gates ``(n, 1)`` that let the context in."""

    ct: Tensor
    mr: Tensor
    gate_mr_to_ct: Tensor
    gate_ct_to_mr: Tensor


class FusionBlock(nn.Module):
    """Exchange context between the streams; the same functions serve both directions.

    ``channels``: quaternion channels C of each stream.
    """

    def __init__(self, config: NetworkConfig, channels: int) -> None:
        super().__init__()
        self.channels, self.exchanges = channels, config.cross_fusion
        self.literal = config.literal_absent
        width = 2 * channels if config.cross_fusion else channels
        self.out = conv_block(config, width, channels)
        self.gate: nn.Module | None = None
        if config.cross_fusion:
            self.query = conv(config, channels, channels, 1)
            self.key = conv(config, channels, channels, 1)
            self.value = conv(config, channels, channels, 1)
            self.gate = gate_mlp(channels) if config.adaptive_gate else None

    def forward(self, ct: Tensor, mr: Tensor, ct_present: Tensor, mr_present: Tensor) -> Fused:
        """``ct``, ``mr``: ``(n, 4C, z, y, x)``; ``*_present``: ``(n, 1, 1, 1, 1)``, 0 or 1."""
        if not self.exchanges:
            closed = ct.new_zeros(len(ct), 1)
            return Fused(self.alone(ct), self.alone(mr), closed, closed)
        to_ct, gate_ct = self._admit(ct, self.context(ct, mr))
        to_mr, gate_mr = self._admit(mr, self.context(mr, ct))
        fused_ct, fused_mr = self.out(ct, to_ct), self.out(mr, to_mr)
        if self.literal:
            return Fused(fused_ct, fused_mr, gate_ct, gate_mr)
        # Without this factor the absent stream fills with the other's features (eq. 10 would hold
        # at the first scale only): softmax of Q = 0 is uniform, so its context is not zero.
        return Fused(fused_ct * ct_present, fused_mr * mr_present, gate_ct, gate_mr)

    def context(self, target: Tensor, source: Tensor) -> Tensor:
        """Raw cross-context of eq. (4)-(6)."""
        attention = torch.softmax(self.query(target) * self.key(source), dim=1)
        raw: Tensor = attention * self.value(source)
        return raw

    def alone(self, x: Tensor) -> Tensor:
        """The collapse of eq. (10): the half of the output kernel that sees the stream itself."""
        return self.out.activate(self.own_conv.convolve(x, self.own_weight()))

    @property
    def own_conv(self) -> QuaternionConv | RealConv:
        convolution = self.out.conv
        if not isinstance(convolution, QuaternionConv | RealConv):
            raise TypeError(type(convolution).__name__)
        return convolution

    def own_weight(self) -> Tensor:
        """``QConv_out``'s weight for the channels of the target stream alone."""
        weight = self.own_conv.weight
        if not self.exchanges:
            return weight
        if weight.ndim == 6:
            return weight[:, :, : self.channels]
        return weight[:, : 4 * self.channels]

    def pruned(self, config: NetworkConfig) -> ConvBlock:
        """A copy of what one stream alone needs of this block."""
        block = conv_block(config, self.channels, self.channels).to(self.own_conv.weight)
        state = self.out.state_dict() | {"conv.weight": self.own_weight().detach().clone()}
        block.load_state_dict(state)
        return block

    def _admit(self, target: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        """The gated context and its gate, eq. (7)-(8)."""
        if self.gate is None:
            return context, context.new_ones(len(context), 1)
        pooled = torch.cat([target.mean((2, 3, 4)), context.mean((2, 3, 4))], 1)
        gate = torch.sigmoid(self.gate(pooled))
        return context * gate[:, :, None, None, None], gate


def gate_mlp(channels: int) -> nn.Sequential:
    """8C -> 4C -> 1."""
    return nn.Sequential(
        nn.Linear(8 * channels, 4 * channels),
        nn.LeakyReLU(SLOPE),
        nn.Linear(4 * channels, 1),
    )
