"""The layers both the fusion block and the network are made of: all map zeros to zeros."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .quaternion import QuaternionConv
from .spec import NetworkConfig

SLOPE = 0.01


class RealConv(nn.Conv3d):
    """The plain convolution of the same real width: the real-valued ablation of table 7."""

    def __init__(self, in_channels: int, out_channels: int, kernel: int, *, stride: int = 1):
        super().__init__(
            in_channels, out_channels, kernel, stride=stride, padding=kernel // 2, bias=False
        )
        nn.init.kaiming_normal_(self.weight, a=SLOPE)

    def forward(self, first: Tensor, second: Tensor | None = None) -> Tensor:
        return super().forward(first if second is None else torch.cat([first, second], 1))

    def convolve(self, x: Tensor, weight: Tensor) -> Tensor:
        return F.conv3d(x, weight, None, self.stride, self.padding)


Conv = QuaternionConv | RealConv


def conv(
    config: NetworkConfig, channels_in: int, channels_out: int, kernel: int, *, stride: int = 1
) -> Conv:
    """A convolution between maps of ``channels_in`` and ``channels_out`` quaternion channels."""
    kind = QuaternionConv if config.quaternion else RealConv
    return kind(4 * channels_in, 4 * channels_out, kernel, stride=stride)


class GainNorm(nn.Module):
    """Instance norm with a gain and no shift, so that zeros stay zeros."""

    shift: Tensor

    def __init__(self, channels: int, eps: float) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(channels))
        self.register_buffer("shift", torch.zeros(channels), persistent=False)
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        if torch.onnx.is_in_onnx_export():
            # Engines add up a whole map in float32 and lose digits where it is flat. Taking most of
            # the mean away first, axis by axis, changes nothing else.
            x = x - x.mean(-1, keepdim=True).mean(-2, keepdim=True).mean(-3, keepdim=True)
        return F.instance_norm(
            x, weight=self.gain.to(x.dtype), bias=self.shift.to(x.dtype), eps=self.eps
        )


class ConvBlock(nn.Module):
    """Convolution, norm, LeakyReLU."""

    def __init__(self, convolution: nn.Module, channels: int, eps: float) -> None:
        super().__init__()
        self.conv = convolution
        self.norm = GainNorm(channels, eps)

    def forward(self, *maps: Tensor) -> Tensor:
        """One map, or two that the convolution joins."""
        return self.activate(self.conv(*maps))

    def activate(self, x: Tensor) -> Tensor:
        return F.leaky_relu(self.norm(x), SLOPE)


def conv_block(
    config: NetworkConfig, channels_in: int, channels_out: int, kernel: int = 3, *, stride: int = 1
) -> ConvBlock:
    """``ConvBlock`` between quaternion widths."""
    convolution = conv(config, channels_in, channels_out, kernel, stride=stride)
    return ConvBlock(convolution, 4 * channels_out, config.norm_eps)
