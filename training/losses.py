"""The joint loss (section 3.3.1, eq. 12-15) and what incomplete labels contribute to it."""

from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor
from torch.nn import functional as F

from model.types import TUMOUR

EPSILON = 1.0


class Loss(NamedTuple):
    """``value``: Dice plus cross-entropy, what is minimised; ``dice``: the soft Dice in it, mean of
    the classes. Scalars."""

    value: Tensor
    dice: Tensor


class Sums(NamedTuple):
    """What eq. 13-15 need of a batch; those of parts of a batch add up to the whole's.

    ``overlap``, ``predicted``, ``truth``: ``(classes,)`` sums over voxels; ``cross_entropy``, and
    ``known_tumour`` (log p(tumour | organ) where a merged case knows one): means over the voxels.
    """

    overlap: Tensor
    predicted: Tensor
    truth: Tensor
    cross_entropy: Tensor
    known_tumour: Tensor

    def loss(self, epsilon: float) -> Loss:
        dice = (2 * self.overlap + epsilon) / (self.predicted + self.truth + epsilon)
        mean = dice.mean()
        return Loss(1 - mean + self.cross_entropy - self.known_tumour, mean.detach())


Rule: TypeAlias = Callable[[Tensor, Tensor], Sums]
Total: TypeAlias = Callable[[Tensor], Tensor]


def alone(x: Tensor) -> Tensor:
    """The sum over all processes where there is one."""
    return x


def dice_ce(logits: Tensor, label: Tensor, *, epsilon: float = EPSILON) -> Tensor:
    """Soft Dice plus cross-entropy (eq. 13-15), Dice per class over the whole batch.

    ``logits``: ``(n, classes, z, y, x)``; ``label``: ``(n, z, y, x)`` integers. A scalar.
    """
    return _full(logits, label).loss(epsilon).value


def merged_dice_ce(logits: Tensor, label: Tensor, *, epsilon: float = EPSILON) -> Tensor:
    """The same for labels that count tumour as liver: classes 1 and 2 are one class, with the sum
    of their probabilities. A voxel that is known to be tumour (2) must still be called so."""
    return _merged(logits, label).loss(epsilon).value


def case_loss(
    logits: Tensor,
    label: Tensor,
    quality: Sequence[str],
    pseudo_weight: float,
    total: Total = alone,
) -> Loss:
    """Loss of one modality's batch: ``full`` and ``healthy`` labels by eq. 13-15, ``merged`` ones
    merged, ``pseudo`` ones by eq. 13-15 times ``pseudo_weight``. Each rule sees its samples as one
    batch and counts by their share; the Dice by its share alone.

    ``total``: the differentiable sum of a tensor over the processes that share a batch. All get the
    loss of the whole batch; patches must be of one size.
    """
    rules = _rules(quality, pseudo_weight)
    counts = [len(members) for _, _, members in rules]
    whole = counts if total is alone else total(logits.new_tensor(counts)).int().tolist()
    value = logits.new_zeros((), dtype=torch.float32)
    dice = torch.zeros_like(value)
    for (rule, weight, members), count in zip(rules, whole, strict=True):
        if count:
            share = count / sum(whole)
            part = _summed(rule, logits[members], label[members], count, total).loss(EPSILON)
            value = value + weight * share * part.value
            dice = dice + share * part.dice
    return Loss(value, dice)


def _rules(
    quality: Sequence[str], pseudo_weight: float
) -> tuple[tuple[Rule, float, list[int]], ...]:
    """Rule, weight, and the samples it is for."""

    def having(*names: str) -> list[int]:
        return [i for i, name in enumerate(quality) if name in names]

    return (
        (_full, 1.0, having("full", "healthy")),
        (_merged, 1.0, having("merged")),
        (_full, pseudo_weight, having("pseudo")),
    )


def _summed(rule: Rule, logits: Tensor, label: Tensor, count: int, total: Total) -> Sums:
    """The rule's sums over the ``count`` samples that all processes have for it."""
    if total is alone:
        return rule(logits, label)
    sums = rule(logits, label) if len(logits) else _nothing(rule, logits)
    share = len(logits) / count
    parts = [*sums[:3], share * sums.cross_entropy[None], share * sums.known_tumour[None]]
    whole = total(torch.cat(parts)).split([len(part) for part in parts])
    return Sums(whole[0], whole[1], whole[2], whole[3][0], whole[4][0])


def _nothing(rule: Rule, logits: Tensor) -> Sums:
    """Zeros that still lead back to the (empty) logits: every process has a gradient to share."""
    zero = _log_softmax(logits).sum()
    classes = zero.expand(logits.shape[1] if rule is _full else 2)
    return Sums(classes, classes, classes, zero, zero)


def _full(logits: Tensor, label: Tensor) -> Sums:
    return _sums(_log_softmax(logits), label.long())


def _merged(logits: Tensor, label: Tensor) -> Sums:
    log_p = _log_softmax(logits)
    merged = torch.stack([log_p[:, 0], torch.logsumexp(log_p[:, 1:], 1)], 1)
    sums = _sums(merged, label.clamp(max=1).long())
    given_liver = (log_p[:, TUMOUR] - merged[:, 1])[label == TUMOUR]
    return sums._replace(known_tumour=given_liver.sum() / label.numel())


def _log_softmax(logits: Tensor) -> Tensor:
    """In float32 at least: sums over a patch overflow the half types."""
    return F.log_softmax(logits.to(torch.promote_types(logits.dtype, torch.float32)), 1)


def _sums(log_p: Tensor, label: Tensor) -> Sums:
    p = log_p.exp()
    truth = F.one_hot(label, p.shape[1]).movedim(-1, 1).to(p.dtype)
    space = (0, *range(2, p.ndim))
    overlap = (p * truth).sum(space)
    predicted, known = p.sum(space), truth.sum(space)
    return Sums(overlap, predicted, known, F.nll_loss(log_p, label), p.new_zeros(()))
