"""Quaternion convolution of any rank, plain and transposed (section 3.2.1, eq. 2-3).

A map of C quaternion channels is a real tensor ``(n, 4C, *space)`` in four blocks
``[r | i | j | k]``.
"""

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .errors import ConfigError

# Eq. (2): row = output block, column = input block; (component of W, sign).
HAMILTON = (
    ((0, 1), (1, -1), (2, -1), (3, -1)),
    ((1, 1), (0, 1), (3, -1), (2, 1)),
    ((2, 1), (3, 1), (0, 1), (1, -1)),
    ((3, 1), (2, -1), (1, 1), (0, 1)),
)
_CONVOLUTIONS: dict[tuple[int, bool], Any] = {
    (1, False): F.conv1d,
    (2, False): F.conv2d,
    (3, False): F.conv3d,
    (1, True): F.conv_transpose1d,
    (2, True): F.conv_transpose2d,
    (3, True): F.conv_transpose3d,
}


def real_kernel(weight: Tensor, *, transposed: bool = False) -> Tensor:
    """Assemble the real kernel of eq. (2).

    ``weight``: ``(4, C_out, C_in, *kernel)``, or ``(4, C_in, C_out, *kernel)`` when transposed.
    Returns ``(4 C_out, 4 C_in, *kernel)``, or ``(4 C_in, 4 C_out, *kernel)``.
    """
    parts = weight.unbind(0)
    table = list(zip(*HAMILTON, strict=True)) if transposed else HAMILTON
    rows = [torch.cat([parts[c] if s > 0 else -parts[c] for c, s in row], 1) for row in table]
    return torch.cat(rows, 0)


def quaternion_channels(channels: int) -> int:
    """How many quaternion channels ``channels`` real ones make.

    Raises ``ConfigError`` for a count that is no positive multiple of 4.
    """
    if channels <= 0 or channels % 4:
        raise ConfigError(f"{channels} real channels are no multiple of 4")
    return channels // 4


class QuaternionConv(nn.Module):
    """Bias-free quaternion convolution; ``in_channels`` and ``out_channels`` are real counts.

    Holds one weight ``(4, C_out, C_in, *kernel)``: a quarter of the real layer's parameters
    (eq. 3). Raises ``ConfigError`` for channels that are no multiple of 4 or a rank beyond 1-3.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int,
        *,
        stride: int = 1,
        rank: int = 3,
        transposed: bool = False,
    ) -> None:
        super().__init__()
        if rank not in (1, 2, 3):
            raise ConfigError(f"a convolution of rank {rank} does not exist; use 1, 2 or 3")
        inputs, outputs = quaternion_channels(in_channels), quaternion_channels(out_channels)
        pair = (inputs, outputs) if transposed else (outputs, inputs)
        self.stride, self.padding = stride, kernel // 2
        self.transposed, self.rank = transposed, rank
        self.weight = nn.Parameter(torch.empty(4, *pair, *([kernel] * rank)))
        polar_(self.weight, fan_in=in_channels * kernel**rank)

    def forward(self, first: Tensor, second: Tensor | None = None) -> Tensor:
        """Convolve one map, or two ``(n, 4A, *space)`` and ``(n, 4B, *space)`` joined block by
        block, so that both stay quaternions.

        The kernels of both stand side by side instead: that saves taking large maps apart.
        """
        if second is None:
            return self.convolve(first, self.weight)
        cut = first.shape[1] // 4
        kernels = [real_kernel(part) for part in (self.weight[:, :, :cut], self.weight[:, :, cut:])]
        return self._apply_kernel(torch.cat([first, second], 1), torch.cat(kernels, 1))

    def convolve(self, x: Tensor, weight: Tensor) -> Tensor:
        """Convolve with (a slice of) the quaternion weight."""
        return self._apply_kernel(x, real_kernel(weight, transposed=self.transposed))

    def _apply_kernel(self, x: Tensor, kernel: Tensor) -> Tensor:
        operation = _CONVOLUTIONS[self.rank, self.transposed]
        result: Tensor = operation(x, kernel, None, self.stride, self.padding)
        return result


def polar_(weight: Tensor, *, fan_in: int, slope: float = 0.01) -> None:
    """Polar initialisation: modulus chi-distributed with four degrees of freedom, a uniform phase,
    a uniform imaginary axis; scaled so that the output variance is that of a real He layer."""
    deviation = math.sqrt(2.0 / ((1.0 + slope**2) * fan_in))
    with torch.no_grad():
        modulus = deviation * torch.randn_like(weight).norm(dim=0)
        phase = (torch.rand_like(weight[0]) * 2.0 - 1.0) * math.pi
        axis = F.normalize(torch.randn_like(weight[1:]), dim=0)
        weight[0] = modulus * phase.cos()
        weight[1:] = modulus * phase.sin() * axis
