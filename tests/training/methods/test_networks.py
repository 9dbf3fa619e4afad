"""Sizes as published, awkward patches, precision."""

import pytest
import torch
from pydantic import ValidationError
from torch import nn

from model.types import ShapeZYX
from training.config import MethodConfig, MethodName
from training.methods.blueprint import StreamPlan
from training.methods.networks import Padded, build_network
from training.methods.precision import guard

ISOTROPIC = (1.0, 1.0, 1.0)


def plan(name: MethodName, patch: ShapeZYX, classes: int = 3, **settings: object) -> StreamPlan:
    method = MethodConfig.model_validate({"name": name, **settings})
    return StreamPlan(method, classes, patch, ISOTROPIC)


def million_weights(stream: StreamPlan) -> float:
    # MONAI's Swin reads a tensor while it is built.
    with torch.device("cpu" if stream.method.name == "swin_unetr" else "meta"):
        return sum(p.numel() for p in build_network(stream).parameters()) / 1e6


@pytest.mark.parametrize(
    ("name", "patch", "classes", "published"),
    [
        ("dynunet", (128, 128, 128), 3, 31.2),  # nnU-Net's plan for LiTS
        ("attention_unet", (128, 128, 128), 3, 5.9),  # that of MONAI's module
        ("unetr", (96, 96, 96), 14, 92.8),  # for BTCV
        ("swin_unetr", (96, 96, 96), 14, 62.2),  # for BTCV
    ],
)
def test_without_settings_the_networks_are_as_large_as_published(
    name: MethodName, patch: ShapeZYX, classes: int, published: float
) -> None:
    assert million_weights(plan(name, patch, classes)) == pytest.approx(published, rel=0.005)


@pytest.mark.parametrize("name", ["dynunet", "attention_unet", "unetr", "unpaired_kd"])
def test_the_papers_patch_can_be_planned(name: MethodName) -> None:
    assert million_weights(plan(name, (16, 256, 256))) > 5


def test_unused_scales_need_no_weights() -> None:
    """A patch with three scales takes the first three of five widths."""
    few, many = (4, 6, 8), (4, 6, 8, 10, 12)
    sizes = {million_weights(plan("dynunet", (16, 16, 32), channels=c)) for c in (few, many)}
    assert len(sizes) == 1


class Recorder(nn.Module):
    """Gives its input back, and remembers its shape."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.seen = tuple(x.shape[2:])
        return x


@pytest.mark.parametrize(
    ("patch", "padded"),
    [
        ((16, 80, 80), (32, 96, 96)),
        ((32, 64, 96), (32, 64, 96)),
        ((16, 16, 32), (32, 32, 64)),  # one voxel would be left after five halvings
    ],
)
def test_padding_is_taken_off_again(patch: ShapeZYX, padded: ShapeZYX) -> None:
    torch.manual_seed(0)
    x, inner = torch.rand(1, 1, *patch), Recorder()
    torch.testing.assert_close(Padded(inner, 32)(x), x)
    assert inner.seen == padded


@pytest.mark.parametrize("depth", [1, 2, 4])
def test_half_precision_weight_gradients_at_every_depth(depth: int) -> None:
    torch.manual_seed(0)
    net = guard(nn.Sequential(nn.Conv3d(64, 96, 3, padding=1, bias=False)))
    x, wanted = torch.randn(1, 64, depth, 7, 7), torch.randn(1, 96, depth, 7, 7)
    grads = []
    for half in (True, False):
        net.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            y = net(x)
        (y.float() * wanted).sum().backward()
        (grad,) = (p.grad for p in net.parameters())
        assert grad is not None
        grads.append(grad.clone())
    half_grad, single = grads
    torch.testing.assert_close(half_grad, single, rtol=0, atol=0.02 * single.abs().max().item())


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"name": "swin_unetr", "channels": (16,)}, "multiple of 12"),
        ({"name": "swin_unetr", "channels": (12, 24)}, "are 2; 1 to 1"),
        ({"name": "unetr", "hidden": 100, "heads": 12}, "hidden 100"),
        ({"name": "dynunet", "channels": (8, 16)}, "3 to 8"),
        ({"name": "attention_unet", "channels": (1, 2, 4)}, "halve"),
        ({"name": "aqcf", "channels": (8, 16, 32)}, "aqcf: channels"),
        ({"name": "unpaired_kd", "distillation": -1.0}, "distillation"),
    ],
)
def test_impossible_settings_are_named(settings: dict[str, object], problem: str) -> None:
    with pytest.raises(ValidationError, match=problem):
        MethodConfig.model_validate(settings)
