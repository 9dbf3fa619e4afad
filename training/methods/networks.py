"""The networks of the baselines for one modality, by MONAI: ``(n, 1, z, y, x)`` to plain logits
``(n, classes, z, y, x)``.

Every batch norm is an instance norm here. In a batch of one the two are the same while training,
but a batch norm would go over to its running mean when it is deployed.
"""

from collections.abc import Callable, Sequence

from monai.networks.nets.attentionunet import AttentionUnet
from monai.networks.nets.dynunet import DynUNet
from monai.networks.nets.swin_unetr import SwinUNETR
from monai.networks.nets.unetr import UNETR
from torch import Tensor, nn
from torch.nn import functional as F

from ..config import MethodConfig, MethodName
from .blueprint import StreamPlan
from .precision import guard
from .scales import plan_scales

NNUNET_CHANNELS = (32, 64, 128, 256, 320, 320, 320, 320)  # Isensee et al. 2021
ATTENTION_CHANNELS = (16, 32, 64, 128, 256)  # Oktay et al. 2018, their three-dimensional network
UNETR_FEATURES, UNETR_MLP = 16, 4  # Hatamizadeh et al. 2022b; the MLP in units of ``hidden``
SWIN_FEATURES = 48  # Hatamizadeh et al. 2022a
_SWIN_DIVISOR = 32  # MONAI's network halves each axis five times

Builder = Callable[[StreamPlan], nn.Module]


def build_network(plan: StreamPlan) -> nn.Module:
    """The network of ``plan.method``, its weights from torch's seed."""
    return guard(_BUILDERS[plan.method.name](plan))


def dynunet(plan: StreamPlan) -> nn.Module:
    """nnU-Net's network without deep supervision. A patch with fewer scales than ``channels`` uses
    the first of them."""
    channels = plan.method.channels or NNUNET_CHANNELS
    scales = plan_scales(plan.patch, plan.spacing_mm, len(channels))
    net = DynUNet(
        spatial_dims=3,
        in_channels=1,
        out_channels=plan.classes,
        kernel_size=scales.kernels,
        strides=scales.strides,
        upsample_kernel_size=scales.strides[1:],
        filters=channels[: len(scales)],
    )
    # MONAI keeps each block under two names; these two parts hold them all once.
    return nn.Sequential(net.skip_layers, net.output_block)


def attention_unet(plan: StreamPlan) -> nn.Module:
    """Attention U-Net, its scales planned as nnU-Net's."""
    channels = plan.method.channels or ATTENTION_CHANNELS
    scales = plan_scales(plan.patch, plan.spacing_mm, len(channels))
    net = AttentionUnet(
        spatial_dims=3,
        in_channels=1,
        out_channels=plan.classes,
        channels=channels[: len(scales)],
        strides=scales.strides[1:],  # type: ignore[arg-type]  # triples do work
    )
    return _instance_norms(net)


def unetr(plan: StreamPlan) -> nn.Module:
    """UNETR; it takes patches of just this size."""
    net = UNETR(
        in_channels=1,
        out_channels=plan.classes,
        img_size=plan.patch,
        feature_size=_feature_size(plan.method, UNETR_FEATURES),
        hidden_size=plan.method.hidden,
        mlp_dim=UNETR_MLP * plan.method.hidden,
        num_heads=plan.method.heads,
    )
    for block in net.vit.blocks:
        block.norm_cross_attn = nn.Identity()  # never run; DDP refuses weights without gradients
    return net


def swin_unetr(plan: StreamPlan) -> nn.Module:
    """Swin UNETR on the padded patch."""
    net = SwinUNETR(
        in_channels=1,
        out_channels=plan.classes,
        feature_size=_feature_size(plan.method, SWIN_FEATURES),
    )
    return Padded(net, _SWIN_DIVISOR)


class Padded(nn.Module):
    """Zeros behind the last voxel of each axis up to a multiple of ``divisor``, taken off the
    logits again. A patch of one ``divisor`` in every axis gets two in the last: the deepest map
    must hold more than one voxel, or its instance norm has nothing to compare."""

    def __init__(self, net: nn.Module, divisor: int) -> None:
        super().__init__()
        self.net, self.divisor = net, divisor

    def forward(self, image: Tensor) -> Tensor:
        z, y, x = image.shape[2:]
        more_z, more_y, more_x = (
            padded - side for padded, side in zip(self._sides((z, y, x)), (z, y, x), strict=True)
        )
        logits: Tensor = self.net(F.pad(image, (0, more_x, 0, more_y, 0, more_z)))
        return logits[..., :z, :y, :x]

    def _sides(self, shape: Sequence[int]) -> list[int]:
        sides = [-(-side // self.divisor) * self.divisor for side in shape]
        if max(sides) == self.divisor:
            sides[-1] += self.divisor
        return sides


def _feature_size(method: MethodConfig, published: int) -> int:
    return method.channels[0] if method.channels else published


def _instance_norms(net: nn.Module) -> nn.Module:
    for parent in list(net.modules()):
        for name, child in parent.named_children():
            if isinstance(child, nn.BatchNorm3d):
                setattr(parent, name, nn.InstanceNorm3d(child.num_features, affine=True))
    return net


_BUILDERS: dict[MethodName, Builder] = {
    "dynunet": dynunet,
    "attention_unet": attention_unet,
    "unetr": unetr,
    "swin_unetr": swin_unetr,
    "unpaired_kd": dynunet,
}
