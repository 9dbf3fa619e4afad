import math

import pytest
import torch
from quaternions import quaternion_cat
from torch import Tensor

from model.fusion import FusionBlock
from model.layers import GainNorm
from model.quaternion import QuaternionConv, real_kernel
from model.spec import NetworkConfig

CHANNELS = 2
SPACE = (3, 4, 5)


def make_block(**options: bool) -> FusionBlock:
    torch.manual_seed(0)
    block = FusionBlock(NetworkConfig(**options), CHANNELS).double()
    with torch.no_grad():
        for parameter in block.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return block


def maps(count: int = 2, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, 4 * CHANNELS, *SPACE, generator=generator, dtype=torch.float64)


def present(*flags: float) -> Tensor:
    return torch.tensor(flags, dtype=torch.float64)[:, None, None, None, None]


BOTH = present(1, 1)


def lipschitz_bound(block: FusionBlock) -> float:
    """An L of eq. (11). The convolution of the context is no longer than the sum of its taps'
    norms, the instance norm than gain / sqrt(eps), LeakyReLU than 1."""
    convolution, norm = block.out.conv, block.out.norm
    assert isinstance(convolution, QuaternionConv)
    assert isinstance(norm, GainNorm)
    kernel = real_kernel(convolution.weight[:, :, CHANNELS:]).flatten(2)
    taps = sum(float(torch.linalg.matrix_norm(kernel[..., t], 2)) for t in range(kernel.shape[2]))
    return taps * float(norm.gain.abs().max()) / math.sqrt(norm.eps)


def test_attention_sums_to_one_over_the_channels_of_each_voxel() -> None:
    block, ct, mr = make_block(), maps(seed=1), maps(seed=2)
    attention = block.context(ct, mr) / block.value(mr)
    torch.testing.assert_close(attention.sum(1), torch.ones(2, *SPACE, dtype=torch.float64))


def test_a_stream_of_zeros_gives_no_context() -> None:
    block, ct = make_block(), maps()
    assert block.context(ct, torch.zeros_like(ct)).abs().max() == 0


@pytest.mark.parametrize("quaternion", [True, False])
@pytest.mark.parametrize("adaptive_gate", [True, False])
def test_zeroed_source_leaves_the_lone_stream(quaternion: bool, adaptive_gate: bool) -> None:
    """Eq. (10), by the half kernel and by the pruned copy."""
    config = NetworkConfig(quaternion=quaternion, adaptive_gate=adaptive_gate)
    block = make_block(quaternion=quaternion, adaptive_gate=adaptive_gate)
    ct, none = maps(), torch.zeros_like(maps())
    fused = block(ct, none, BOTH, present(0, 0))
    torch.testing.assert_close(fused.ct, block.alone(ct), atol=1e-12, rtol=0)
    torch.testing.assert_close(block.pruned(config).double()(ct), block.alone(ct))
    mirrored = block(none, ct, present(0, 0), BOTH)
    torch.testing.assert_close(mirrored.mr, fused.ct)


def test_presence_closes_single_samples() -> None:
    block, ct, mr = make_block(), maps(seed=1), maps(seed=2)
    mr[1] = 0
    fused = block(ct, mr, BOTH, present(1, 0))
    assert fused.mr[0].abs().max() > 0
    assert fused.mr[1].abs().max() == 0


def test_literal_variant_fills_the_absent_stream() -> None:
    """What eq. (10) overlooks: Q = 0 makes the softmax uniform, not the context zero."""
    block, ct = make_block(literal_absent=True), maps()
    fused = block(ct, torch.zeros_like(ct), BOTH, present(0, 0))
    assert fused.mr.abs().max() > 0.01


def test_same_functions_serve_both_directions() -> None:
    block, ct, mr = make_block(), maps(seed=1), maps(seed=2)
    forth, back = block(ct, mr, BOTH, BOTH), block(mr, ct, BOTH, BOTH)
    torch.testing.assert_close((forth.ct, forth.gate_mr_to_ct), (back.mr, back.gate_ct_to_mr))
    assert not torch.allclose(forth.ct, back.ct)


@pytest.mark.parametrize("scale", [100.0, 1.0, 1e-3, 1e-6])
@pytest.mark.parametrize("seed", range(3))
def test_deviation_from_the_lone_stream_is_bounded_by_the_gated_context(
    scale: float, seed: int
) -> None:
    """Eq. (11); at small scales it also says that both paths are one function."""
    block = make_block()
    ct, mr = maps(seed=seed), scale * maps(seed=seed + 10)
    with torch.no_grad():
        fused = block(ct, mr, BOTH, BOTH)
        admitted = fused.gate_mr_to_ct[:, :, None, None, None] * block.context(ct, mr)
        deviation = torch.linalg.vector_norm(fused.ct - block.alone(ct))
        bound = lipschitz_bound(block) * torch.linalg.vector_norm(admitted)
    assert 0 < deviation <= bound


def test_gated_context_joins_through_the_output_convolution() -> None:
    """Eq. (9), put together by hand."""
    block, ct, mr = make_block(), maps(seed=1), maps(seed=2)
    fused = block(ct, mr, BOTH, BOTH)
    gate = fused.gate_mr_to_ct[:, :, None, None, None]
    expected = block.out(quaternion_cat(ct, gate * block.context(ct, mr)))
    torch.testing.assert_close(fused.ct, expected)


def test_gates_are_one_number_per_sample_between_zero_and_one() -> None:
    fused = make_block()(maps(seed=1), maps(seed=2), BOTH, BOTH)
    for gate in (fused.gate_mr_to_ct, fused.gate_ct_to_mr):
        assert gate.shape == (2, 1)
        assert ((gate > 0) & (gate < 1)).all()
        assert gate[0] != gate[1]
    assert not torch.equal(fused.gate_mr_to_ct, fused.gate_ct_to_mr)


def test_without_the_adaptive_gate_all_context_enters() -> None:
    block, ct, mr = make_block(adaptive_gate=False), maps(seed=1), maps(seed=2)
    fused = block(ct, mr, BOTH, BOTH)
    assert (fused.gate_mr_to_ct == 1).all()
    assert block.gate is None
    expected = block.out(quaternion_cat(ct, block.context(ct, mr)))
    torch.testing.assert_close(fused.ct, expected)


def test_without_cross_fusion_no_stream_sees_the_other() -> None:
    block, ct = make_block(cross_fusion=False), maps()
    first, second = (block(ct, maps(seed=s), BOTH, BOTH) for s in (1, 2))
    assert torch.equal(first.ct, second.ct)
    assert (first.gate_mr_to_ct == 0).all()
    assert {name.split(".")[0] for name, _ in block.named_parameters()} == {"out"}
