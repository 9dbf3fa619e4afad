"""bf16 gradients against float32 ones, at the patches that the configurations use."""

import pytest
import torch

from model.network import AQCFNet
from model.spec import NetworkConfig


def gradients(net: AQCFNet, shape: tuple[int, int, int], low: bool) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    ct, mr = (torch.rand(1, 1, *shape, generator=generator) for _ in range(2))
    net.zero_grad()
    with torch.autocast("cpu", torch.bfloat16, enabled=low):
        logits = net(ct, mr)
    sum(x.float().square().mean() for x in logits).backward()
    return {name: p.grad.clone() for name, p in net.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("depth", [16, 32])
def test_bf16_gradients_are_near(depth: int) -> None:
    """Depth 16 has maps of depth 2 and 1, depth 32 of 4 and 2."""
    torch.manual_seed(0)
    net = AQCFNet(NetworkConfig(widths=(4, 4, 8, 8, 8), bottleneck=8))
    exact, low = (gradients(net, (depth, 48, 48), low) for low in (False, True))
    assert exact.keys() == low.keys()
    largest = max(gradient.norm() for gradient in exact.values())
    for name, gradient in exact.items():
        assert (low[name] - gradient).norm() < gradient.norm() + 0.01 * largest, name
    one, other = (torch.cat([g.flatten() for g in part.values()]) for part in (exact, low))
    assert torch.cosine_similarity(one, other, dim=0) > 0.9
