"""Convolutions whose gradients are right under bf16 autocast on a CPU.

Measured with PyTorch 2.13: on a map of depth 2 the weight gradient of a bf16 convolution with a
kernel of depth 3 is wrong by orders of magnitude, at times not finite. Depths 1 and 3 and above
are right, and so are transposed and strided convolutions.
"""

from torch import Tensor, nn

from model.network import full_precision

_FAULTY_DEPTH = 2  # voxels along z


class Guarded(nn.Module):
    """A convolution that runs in float32, whatever autocast says, on a map of depth 2."""

    def __init__(self, layer: nn.Conv3d) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        faulty = x.shape[2] == _FAULTY_DEPTH
        y: Tensor = full_precision(self.layer, x) if faulty else self.layer(x)
        return y


def guard(net: nn.Module) -> nn.Module:
    """Replace the convolutions of ``net`` with deep kernels, in place, by their guarded selves;
    returns ``net``."""
    for parent in list(net.modules()):
        for name, child in parent.named_children():
            if isinstance(child, nn.Conv3d) and child.kernel_size[0] > 1:
                setattr(parent, name, Guarded(child))
    return net
