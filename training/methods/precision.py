"""Convolutions of foreign networks, in a precision that can be trusted."""

from torch import Tensor, nn

from model.precision import trusted


class Guarded(nn.Module):
    """A convolution that goes through ``model.precision.trusted``."""

    def __init__(self, layer: nn.Conv3d) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = trusted(self.layer, x)
        return y


def guard(net: nn.Module) -> nn.Module:
    """Replace the convolutions of ``net`` with deep kernels, in place, by their guarded selves;
    returns ``net``."""
    for parent in list(net.modules()):
        for name, child in parent.named_children():
            if isinstance(child, nn.Conv3d) and child.kernel_size[0] > 1:
                setattr(parent, name, Guarded(child))
    return net
