"""The joint loss (section 3.3.1, eq. 12-15) and what incomplete labels contribute to it."""

from collections.abc import Callable, Sequence
from typing import TypeAlias

import torch
from torch import Tensor
from torch.nn import functional as F

from model.types import TUMOUR

EPSILON = 1.0
Rule: TypeAlias = Callable[[Tensor, Tensor], Tensor]


def dice_ce(logits: Tensor, label: Tensor, *, epsilon: float = EPSILON) -> Tensor:
    """Soft Dice plus cross-entropy (eq. 13-15), Dice per class over the whole batch.

    ``logits``: ``(n, classes, z, y, x)``; ``label``: ``(n, z, y, x)`` integers. A scalar.
    """
    return _dice_ce(_log_softmax(logits), label.long(), epsilon)


def merged_dice_ce(logits: Tensor, label: Tensor, *, epsilon: float = EPSILON) -> Tensor:
    """The same for labels that count tumour as liver: classes 1 and 2 are one class, with the sum
    of their probabilities. A voxel that is known to be tumour (2) must still be called so."""
    log_p = _log_softmax(logits)
    merged = torch.stack([log_p[:, 0], torch.logsumexp(log_p[:, 1:], 1)], 1)
    loss = _dice_ce(merged, label.clamp(max=1).long(), epsilon)
    known = label == TUMOUR
    given_liver = (log_p[:, TUMOUR] - merged[:, 1])[known]
    return loss - given_liver.sum() / label.numel()


def case_loss(
    logits: Tensor, label: Tensor, quality: Sequence[str], pseudo_weight: float
) -> Tensor:
    """Loss of one modality's batch: ``full`` and ``healthy`` labels by eq. 13-15, ``merged`` ones
    merged, ``pseudo`` ones by eq. 13-15 times ``pseudo_weight``. Each rule sees its samples as one
    batch and counts by their share."""
    total = logits.new_zeros((), dtype=torch.float32)
    for rule, weight, members in _rules(quality, pseudo_weight):
        if members:
            share = len(members) / len(quality)
            total = total + weight * share * rule(logits[members], label[members])
    return total


def _rules(
    quality: Sequence[str], pseudo_weight: float
) -> tuple[tuple[Rule, float, list[int]], ...]:
    """Rule, weight, and the samples it is for."""

    def having(*names: str) -> list[int]:
        return [i for i, name in enumerate(quality) if name in names]

    return (
        (dice_ce, 1.0, having("full", "healthy")),
        (merged_dice_ce, 1.0, having("merged")),
        (dice_ce, pseudo_weight, having("pseudo")),
    )


def _log_softmax(logits: Tensor) -> Tensor:
    """In float32 at least: sums over a patch overflow the half types."""
    return F.log_softmax(logits.to(torch.promote_types(logits.dtype, torch.float32)), 1)


def _dice_ce(log_p: Tensor, label: Tensor, epsilon: float) -> Tensor:
    p = log_p.exp()
    truth = F.one_hot(label, p.shape[1]).movedim(-1, 1).to(p.dtype)
    space = (0, *range(2, p.ndim))
    overlap = (p * truth).sum(space)
    dice = (2 * overlap + epsilon) / (p.sum(space) + truth.sum(space) + epsilon)
    return 1 - dice.mean() + F.nll_loss(log_p, label)
