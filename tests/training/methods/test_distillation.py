"""The loss of Dou et al. against numbers worked out by hand, and what is shared."""

from collections.abc import Callable
from math import exp, log

import pytest
import torch
from torch import Tensor, nn

from training.config import TrainConfig
from training.methods import Distils, build_method
from training.methods.distillation import class_confusion, confusion_loss

TEMPERATURE = 2.0


def logits(*voxels: tuple[float, ...]) -> Tensor:
    """``(1, classes, 1, 1, n)`` of n voxels' logits."""
    return torch.tensor(voxels).T[None, :, None, None, :]


def labels(*voxels: int) -> Tensor:
    return torch.tensor(voxels)[None, None, None, :]


# Class 0 of CT: mean (2 ln 3, 0), over T (ln 3, 0), softmax (3/4, 1/4). Of MR: (1/2, 1/2).
CT, CT_LABELS = logits((4 * log(3), 0.0), (0.0, 0.0), (1.0, 5.0)), labels(0, 0, 1)
MR, MR_LABELS = logits((1.0, 1.0), (-3.0, -3.0), (1.0, 5.0)), labels(0, 0, 1)
ROW_0 = (0.75 * log(0.75 / 0.5) + 0.25 * log(0.25 / 0.5)) / 2 + (
    0.5 * log(0.5 / 0.75) + 0.5 * log(0.5 / 0.25)
) / 2


def loss_of(ct: Tensor, ct_labels: Tensor, mr: Tensor, mr_labels: Tensor) -> float:
    pair, truth = {"ct": ct, "mr": mr}, {"ct": ct_labels, "mr": mr_labels}
    return confusion_loss(pair, truth, TEMPERATURE).item()  # type: ignore[arg-type]


def test_confusion_is_the_softened_mean_of_each_class() -> None:
    table, known = class_confusion(CT, CT_LABELS, TEMPERATURE)
    sure = 1 / (1 + exp(-2))
    torch.testing.assert_close(table.exp(), torch.tensor([[0.75, 0.25], [1 - sure, sure]]))
    assert known.tolist() == [True, True]


def test_loss_is_the_mean_over_classes_of_the_symmetric_divergence() -> None:
    """Class 1 is confused alike, so half of what class 0 gives is left."""
    assert loss_of(CT, CT_LABELS, MR, MR_LABELS) == pytest.approx(ROW_0 / 2)
    assert loss_of(MR, MR_LABELS, CT, CT_LABELS) == pytest.approx(ROW_0 / 2)
    assert loss_of(CT, CT_LABELS, CT, CT_LABELS) == 0


def test_a_class_that_one_modality_lacks_does_not_count() -> None:
    only_0 = loss_of(CT, CT_LABELS, MR[..., :2], MR_LABELS[..., :2])
    assert only_0 == pytest.approx(ROW_0)


def test_without_a_common_class_there_is_nothing_to_learn() -> None:
    ct = CT.clone().requires_grad_()
    loss = confusion_loss(
        {"ct": ct, "mr": MR[..., 2:]},
        {"ct": labels(0, 0, 0), "mr": labels(1)},
        TEMPERATURE,
    )
    loss.backward()
    assert loss.item() == 0
    assert ct.grad is not None
    assert not ct.grad.any()


def test_both_modalities_learn_and_come_nearer() -> None:
    pair = {"ct": CT.clone().requires_grad_(), "mr": MR.clone().requires_grad_()}
    truth = {"ct": CT_LABELS, "mr": MR_LABELS}
    confusion_loss(pair, truth, TEMPERATURE).backward()  # type: ignore[arg-type]
    moved = [x.detach() - x.grad for x in pair.values() if x.grad is not None]
    assert loss_of(moved[0], CT_LABELS, moved[1], MR_LABELS) < ROW_0 / 2
    assert all(x.grad is not None and x.grad.any() for x in pair.values())


def test_half_types_and_whole_numbers_of_any_kind() -> None:
    found = loss_of(CT.bfloat16(), CT_LABELS.byte(), MR.bfloat16(), MR_LABELS.byte())
    assert found == pytest.approx(ROW_0 / 2, rel=0.02)


@pytest.fixture(scope="module")
def shared(baseline: Callable[[str], TrainConfig]) -> nn.Module:
    torch.manual_seed(0)
    return build_method(baseline("unpaired_kd"))


def test_the_methods_share_of_the_loss_is_weighted(shared: nn.Module) -> None:
    assert isinstance(shared, Distils)
    extra = shared.extra_loss({"ct": CT, "mr": MR}, {"ct": CT_LABELS, "mr": MR_LABELS})
    assert extra.item() == pytest.approx(0.5 * ROW_0 / 2)


def test_a_pair_does_not_distil(baseline: Callable[[str], TrainConfig]) -> None:
    assert not isinstance(build_method(baseline("dynunet")), Distils)


def test_convolutions_are_shared_and_norms_are_not(shared: nn.Module) -> None:
    ct, mr = (dict(shared.get_submodule(f"nets.{m}").named_parameters()) for m in ("ct", "mr"))
    norms = {name for name, weight in ct.items() if weight.ndim == 1 and "norm" in name}
    same = {name for name in ct if ct[name] is mr[name]}
    assert norms
    assert same == ct.keys() - norms


def test_a_stream_holds_its_own_norms_only(shared: nn.Module) -> None:
    stream = shared.one_stream("mr")  # type: ignore[operator]
    of_net = shared.get_submodule("nets.mr").state_dict()
    assert stream.state_dict().keys() == of_net.keys()
    assert sum(p.numel() for p in stream.parameters()) < sum(p.numel() for p in shared.parameters())
