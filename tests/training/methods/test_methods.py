"""What holds for every baseline: streams, gradients, training, weights on disk."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.optim import AdamW

from model.types import MODALITIES
from training.config import TrainConfig
from training.losses import dice_ce
from training.methods import Method, build_method, load_method, save_weights

NAMES = ("dynunet", "attention_unet", "unetr", "swin_unetr", "unpaired_kd")
PATCH = (16, 16, 32)  # that of the configuration
Baseline = Callable[[str], TrainConfig]


@pytest.fixture(scope="module")
def images() -> dict[str, Tensor]:
    torch.manual_seed(1)
    return {m: torch.rand(1, 1, *PATCH) for m in MODALITIES}


@pytest.fixture(scope="module")
def labels(images: dict[str, Tensor]) -> dict[str, Tensor]:
    """Bright is liver, brightest is tumour: something that can be learnt."""
    return {m: (x > 0.5)[:, 0].long() + (x > 0.8)[:, 0].long() for m, x in images.items()}


@pytest.fixture(scope="module", params=NAMES)
def config(request: pytest.FixtureRequest, baseline: Baseline) -> TrainConfig:
    return baseline(request.param)


@pytest.fixture
def net(config: TrainConfig) -> nn.Module:
    torch.manual_seed(0)
    return build_method(config)


def losses(
    net: nn.Module, images: dict[str, Tensor], labels: dict[str, Tensor]
) -> dict[str, Tensor]:
    logits = net(images["ct"], images["mr"])
    return {m: dice_ce(x, labels[m]) for m, x in zip(MODALITIES, logits, strict=True)}


def gradient(net: nn.Module, image: Tensor, label: Tensor, *, half: bool = False) -> Tensor:
    """Of all weights; each must have one."""
    net.zero_grad()
    with torch.autocast("cpu", torch.bfloat16, enabled=half):
        logits = net(image)
    dice_ce(logits, label).backward()
    grads = [p.grad for p in net.parameters()]
    assert all(g is not None for g in grads)
    return torch.cat([g.flatten() for g in grads if g is not None])


def test_a_stream_alone_gives_the_logits_it_gives_in_the_pair(
    net: nn.Module, images: dict[str, Tensor]
) -> None:
    assert isinstance(net, Method)
    stream = net.one_stream("mr")
    with torch.no_grad():
        ct, mr = net(images["ct"], images["mr"], False)
        alone = stream(images["mr"])
    assert not stream.training
    assert ct.shape == mr.shape == (1, 3, *PATCH)
    torch.testing.assert_close(alone, mr)
    assert not torch.allclose(ct, mr)


def test_half_precision_gives_the_gradients_of_single_precision(
    net: nn.Module, images: dict[str, Tensor], labels: dict[str, Tensor]
) -> None:
    stream, image, label = net.get_submodule("nets.ct"), images["ct"], labels["ct"]
    half = gradient(stream, image, label, half=True)
    assert torch.isfinite(half).all()
    assert torch.cosine_similarity(half, gradient(stream, image, label), 0) > 0.97


@pytest.mark.parametrize(("name", "shared"), [("dynunet", False), ("unpaired_kd", True)])
def test_what_one_modality_teaches_the_other(
    name: str,
    shared: bool,
    baseline: Baseline,
    images: dict[str, Tensor],
    labels: dict[str, Tensor],
) -> None:
    """Nothing in a pair; the kernels, not the norms, where they are shared."""
    torch.manual_seed(0)
    net = build_method(baseline(name))
    losses(net, images, labels)["ct"].backward()
    of_mr = dict(net.get_submodule("nets.mr").named_parameters())
    taught = {name for name, weight in of_mr.items() if weight.grad is not None}
    assert taught == ({n for n in of_mr if ".norm" not in n} if shared else set())


@pytest.mark.parametrize("name", [name for name in NAMES if name != "swin_unetr"])  # slow
def test_a_few_steps_reduce_both_losses(
    name: str, baseline: Baseline, images: dict[str, Tensor], labels: dict[str, Tensor]
) -> None:
    torch.manual_seed(0)
    net = build_method(baseline(name))
    optimiser = AdamW(net.parameters(), lr=3e-3)
    course = []
    for _ in range(4):
        each = losses(net, images, labels)
        course.append(each)
        optimiser.zero_grad()
        (each["ct"] + each["mr"]).backward()
        optimiser.step()
    assert all(course[-1][m] < course[0][m] for m in MODALITIES)


@pytest.mark.parametrize("name", ["dynunet", "unpaired_kd"])
def test_recomputing_changes_no_gradient(
    name: str, baseline: Baseline, images: dict[str, Tensor], labels: dict[str, Tensor]
) -> None:
    torch.manual_seed(0)
    net = build_method(baseline(name))
    grads = []
    for net.recompute in (False, True):
        net.zero_grad()
        each = losses(net, images, labels)
        (each["ct"] + each["mr"]).backward()
        grads.append([p.grad for p in net.parameters()])
    for kept, again in zip(*grads, strict=True):
        assert kept is not None
        assert kept.any()
        torch.testing.assert_close(kept, again)


def test_weights_come_back_from_disk(net: nn.Module, config: TrainConfig, tmp_path: Path) -> None:
    path = tmp_path / "best.safetensors"
    save_weights(path, net)
    save_weights(path, net)  # over the older file
    back = load_method(path, config)
    assert [file.name for file in tmp_path.iterdir()] == [path.name]
    assert type(back) is type(net)
    assert not back.training
    assert len(list(back.parameters())) == len(list(net.parameters()))
    for mine, theirs in zip(net.parameters(), back.parameters(), strict=True):
        assert torch.equal(mine, theirs)
