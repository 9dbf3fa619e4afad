from concurrent.futures import ThreadPoolExecutor
from math import log
from threading import Barrier

import pytest
import torch
from monai.losses import DiceCELoss
from torch import Tensor

from training.losses import EPSILON, case_loss, dice_ce, merged_dice_ce

# Four voxels: probabilities of background, liver, tumour.
P = [[0.7, 0.2, 0.1], [0.1, 0.8, 0.1], [0.2, 0.3, 0.5], [0.6, 0.3, 0.1]]


def as_patch(labels: list[int]) -> tuple[Tensor, Tensor]:
    """Logits ``(1, 3, 1, 1, 4)`` with the softmax ``P``, label ``(1, 1, 1, 4)``."""
    logits = torch.tensor(P, dtype=torch.float64).log().T.reshape(1, 3, 1, 1, 4) + 5.0
    return logits, torch.tensor(labels, dtype=torch.uint8).reshape(1, 1, 1, 4)


def random_patch(count: int = 2, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(count, 3, 3, 4, 5, generator=generator, dtype=torch.float64)
    return logits, torch.randint(0, 3, (count, 3, 4, 5), generator=generator, dtype=torch.uint8)


def test_equals_the_example_worked_by_hand() -> None:
    """Eq. 13: per class (2 overlap + 1) / (probabilities + voxels + 1); eq. 14 and 15."""
    background = (2 * (0.7 + 0.6) + 1) / (1.6 + 2 + 1)
    liver = (2 * 0.8 + 1) / (1.6 + 1 + 1)
    tumour = (2 * 0.5 + 1) / (0.8 + 1 + 1)
    cross_entropy = -(log(0.7) + log(0.8) + log(0.5) + log(0.6)) / 4
    expected = 1 - (background + liver + tumour) / 3 + cross_entropy
    assert dice_ce(*as_patch([0, 1, 2, 0])).item() == pytest.approx(expected, rel=1e-12)


def test_merged_sums_the_probabilities_of_liver_and_tumour() -> None:
    """The third voxel may be called tumour (0.5) or liver (0.3): it counts 0.8."""
    background = (2 * (0.7 + 0.6) + 1) / (1.6 + 2 + 1)
    organ = (2 * (0.9 + 0.8) + 1) / (2.4 + 2 + 1)
    cross_entropy = -(log(0.7) + log(0.9) + log(0.8) + log(0.6)) / 4
    expected = 1 - (background + organ) / 2 + cross_entropy
    assert merged_dice_ce(*as_patch([0, 1, 1, 0])).item() == pytest.approx(expected, rel=1e-12)


def test_known_tumour_in_a_merged_case_must_be_called_so() -> None:
    """A grown tumour (2) adds -log p(tumour | organ) of its voxel; all else stays merged."""
    merged = merged_dice_ce(*as_patch([0, 1, 1, 0])).item()
    known = merged_dice_ce(*as_patch([0, 1, 2, 0])).item()
    assert known - merged == pytest.approx(-log(0.5 / 0.8) / 4, rel=1e-12)


def test_merged_case_does_not_tell_liver_from_tumour_where_it_cannot_know() -> None:
    logits, label = random_patch()
    label = label.clamp(max=1)
    swapped = logits[:, [0, 2, 1]]
    torch.testing.assert_close(merged_dice_ce(swapped, label), merged_dice_ce(logits, label))
    assert not torch.isclose(dice_ce(swapped, label), dice_ce(logits, label))


def test_known_tumour_pulls_its_voxel_to_class_2() -> None:
    logits, label = as_patch([0, 1, 2, 0])
    logits.requires_grad_()
    merged_dice_ce(logits, label).backward()
    gradient = logits.grad[0, :, 0, 0, :]  # type: ignore[index]
    assert gradient[2, 2] < 0 < gradient[1, 2]
    torch.testing.assert_close(gradient[1:, 1] < 0, torch.tensor([True, True]))


@pytest.mark.parametrize("count", [1, 3])
def test_equals_monai_for_full_labels(count: int) -> None:
    logits, label = random_patch(count)
    monai = DiceCELoss(
        to_onehot_y=True, softmax=True, batch=True, smooth_nr=EPSILON, smooth_dr=EPSILON
    )
    torch.testing.assert_close(dice_ce(logits, label), monai(logits, label[:, None]))


def test_perfect_and_inverted_predictions() -> None:
    _, label = random_patch()
    truth = torch.nn.functional.one_hot(label.long(), 3).movedim(-1, 1).double()
    for loss in (dice_ce, merged_dice_ce):
        assert loss(50 * truth, label).item() == pytest.approx(0, abs=1e-6)
        assert loss(-50 * truth, label).item() > 10


@pytest.mark.parametrize("loss", [dice_ce, merged_dice_ce])
def test_gradients_are_those_of_the_formula(loss) -> None:
    logits, label = random_patch(1)
    assert torch.autograd.gradcheck(lambda x: loss(x, label), logits.requires_grad_())


def test_half_precision_logits_are_summed_in_single_precision() -> None:
    """A sum of 16-bit probabilities stops growing long before a patch ends."""
    logits = torch.zeros(1, 3, 32, 64, 64, dtype=torch.float16)
    label = torch.zeros(1, 32, 64, 64, dtype=torch.uint8)
    found = dice_ce(logits, label)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, dice_ce(logits.double(), label).float())


def test_healthy_labels_count_as_full() -> None:
    logits, label = random_patch()
    expected = dice_ce(logits, label)
    for quality in (["full", "full"], ["healthy", "full"], ["healthy", "healthy"]):
        torch.testing.assert_close(case_loss(logits, label, quality, 0.3).value, expected)


def test_pseudo_labels_count_less() -> None:
    logits, label = random_patch(1)
    torch.testing.assert_close(
        case_loss(logits, label, ["pseudo"], 0.3).value, 0.3 * dice_ce(logits, label)
    )


def test_a_batch_of_a_merged_and_a_pseudo_case_worked_by_hand() -> None:
    """Two cases of the four voxels. Merged, label 0 1 1 0: Dice (3.6/4.6 + 4.4/5.4)/2 = 0.798712,
    cross-entropy -ln(0.7*0.9*0.8*0.6)/4 = 0.299001, loss 0.500289. Pseudo, label 0 1 2 0: Dice
    (3.6/4.6 + 2.6/3.6 + 2/2.8)/3 = 0.739706, cross-entropy 0.445949, loss 0.706242. Each is half
    of the batch, the pseudo one counts 0.3: 0.250145 + 0.105936."""
    (logits, merged), (_, pseudo) = as_patch([0, 1, 1, 0]), as_patch([0, 1, 2, 0])
    found = case_loss(
        torch.cat([logits, logits]), torch.cat([merged, pseudo]), ["merged", "pseudo"], 0.3
    )
    assert found.value.item() == pytest.approx(0.356081, abs=2e-6)
    assert found.dice.item() == pytest.approx((0.798712 + 0.739706) / 2, abs=2e-6)
    assert not found.dice.requires_grad


def test_rules_count_by_their_share_of_the_batch() -> None:
    logits, label = random_patch(4)
    found = case_loss(logits, label, ["merged", "full", "pseudo", "healthy"], 0.3)
    expected = (
        merged_dice_ce(logits[:1], label[:1]) / 4
        + dice_ce(logits[[1, 3]], label[[1, 3]]) / 2
        + 0.3 * dice_ce(logits[2:3], label[2:3]) / 4
    )
    torch.testing.assert_close(found.value, expected)


def test_processes_that_share_a_batch_have_its_loss_and_its_gradient() -> None:
    """Two of them, here threads; neither has a case for all of the rules."""
    logits, label = random_patch(4)
    logits.requires_grad_()
    quality = ["full", "healthy", "merged", "pseudo"]
    meet, given = Barrier(2, timeout=60), [torch.empty(0)] * 2

    def process(rank: int) -> Tensor:
        def total(own: Tensor) -> Tensor:
            given[rank] = own
            meet.wait()
            both = given[0] + given[1]
            meet.wait()
            return both

        part = slice(2 * rank, 2 * rank + 2)
        return case_loss(logits[part], label[part], quality[part], 0.3, total).value

    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(process, (0, 1)))
    expected = case_loss(logits, label, quality, 0.3).value
    for loss in found:
        torch.testing.assert_close(loss, expected)
    gradients = [torch.autograd.grad(loss, logits)[0] for loss in (found[0], expected)]
    torch.testing.assert_close(*gradients)
