"""Convolutions whose gradients stay finite under bf16 autocast on a CPU."""

from torch import Tensor, nn

from model.network import full_precision

SMALL = 4096  # voxels


class Guarded(nn.Module):
    """A convolution that runs in float32 where its map is small, whatever autocast says."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        small = x[0, 0].numel() <= SMALL
        y: Tensor = full_precision(self.layer, x) if small else self.layer(x)
        return y


def guard(net: nn.Module) -> nn.Module:
    """Replace every convolution of ``net``, in place, by its guarded self; returns ``net``."""
    for parent in list(net.modules()):
        for name, child in parent.named_children():
            if isinstance(child, nn.Conv3d | nn.ConvTranspose3d):
                setattr(parent, name, Guarded(child))
    return net
