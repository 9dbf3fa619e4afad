"""Unpaired knowledge distillation (Dou, Liu, Heng, Glocker, IEEE TMI 2020)."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model.types import MODALITIES, Modality

from .blueprint import Blueprint
from .pair import Pair


class UnpairedDistillation(Pair):
    """One U-Net whose convolutions CT and MR share, and whose norms each has for itself.

    The U-Net is nnU-Net's, so that against ``dynunet`` nothing changes but what Dou et al. add.
    Both modalities have to be halved alike: the scales are planned for the smaller patch and the
    coarser spacing, axis by axis. Where Dou et al. normalise over a batch, the norms here are
    instance norms with a gain and a shift, since a batch is one patch.
    """

    def __init__(self, plan: Blueprint) -> None:
        super().__init__(plan, lambda _: plan.common())
        _share_kernels(self.nets["ct"], self.nets["mr"])

    def extra_loss(self, logits: dict[Modality, Tensor], labels: dict[Modality, Tensor]) -> Tensor:
        """``distillation`` times ``confusion_loss``."""
        method = self.blueprint.method
        return method.distillation * confusion_loss(logits, labels, method.temperature)


def confusion_loss(
    logits: dict[Modality, Tensor], labels: dict[Modality, Tensor], temperature: float
) -> Tensor:
    """How differently CT and MR confuse the classes: a scalar, 0 where they do it alike.

    ``logits``: ``(n, classes, z, y, x)``, ``labels``: ``(n, z, y, x)`` integers. For each class
    that both batches hold, the two rows of the confusion matrices are compared by half the sum of
    both Kullback-Leibler divergences; the mean of these classes. Gradients flow into both.
    """
    tables = {m: class_confusion(logits[m], labels[m], temperature) for m in MODALITIES}
    (ct, in_ct), (mr, in_mr) = tables["ct"], tables["mr"]
    both = (in_ct & in_mr).to(ct.dtype)
    apart = 0.5 * ((ct.exp() - mr.exp()) * (ct - mr)).sum(1)
    return (apart * both).sum() / both.sum().clamp(min=1)


def class_confusion(logits: Tensor, label: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """Log of the ``(classes, classes)`` confusion matrix, and which of its rows are known.

    Row c: the logits averaged over the voxels of class c, over the whole batch, divided by
    ``temperature``, softmax. The row of a class without voxels means nothing. In float32.
    """
    flat = logits.float().movedim(1, 0).flatten(1)  # (classes, voxels)
    members = [label.flatten() == c for c in range(len(flat))]
    sums = torch.stack([(flat * inside).sum(1) for inside in members])
    count = torch.stack([inside.sum() for inside in members])
    mean = sums / count.clamp(min=1)[:, None]
    return F.log_softmax(mean / temperature, 1), count > 0


def _share_kernels(first: nn.Module, second: nn.Module) -> None:
    """Put the convolutions of ``first`` into ``second``, which has the same shape."""
    twins = dict(second.named_modules())
    for path, parent in first.named_modules():
        for name, child in parent.named_children():
            if isinstance(child, nn.Conv3d | nn.ConvTranspose3d):
                setattr(twins[path], name, child)
