from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from model.network import AQCFNet, AttentionGate, presence
from model.quaternion import QuaternionConv
from model.spec import NetworkConfig
from model.types import MODALITIES, Modality

WIDTHS, BOTTLENECK = (1, 2, 2, 2, 4), 4
SPACE = (16, 16, 32)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Threads cost more than they bring on maps this small."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def tiny(*, dtype: torch.dtype = torch.float64, **options: bool) -> AQCFNet:
    """A network whose every parameter is random, gains and head biases too."""
    torch.manual_seed(0)
    net = AQCFNet(NetworkConfig(widths=WIDTHS, bottleneck=BOTTLENECK, **options)).to(dtype)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return net.eval()


def patches(count: int = 1, *, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(count, 1, *SPACE, generator=generator, dtype=dtype)


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def of_kind(net: nn.Module, kind: type[nn.Module]) -> int:
    return sum(count(module) for module in net.modules() if isinstance(module, kind))


def zero_filled(net: AQCFNet, modality: Modality, x: Tensor) -> Tensor:
    """Logits of one modality, the other stream all zeros (eq. 17)."""
    with torch.no_grad():
        ct, mr = (x, torch.zeros_like(x)) if modality == "ct" else (torch.zeros_like(x), x)
        return net(ct, mr)[MODALITIES.index(modality)]


def test_logits_have_the_input_grid_and_the_classes() -> None:
    for logits in tiny()(patches(2), patches(2, seed=1)):
        assert logits.shape == (2, 3, *SPACE)


def test_zeros_in_zeros_out() -> None:
    """Only the heads' biases are left."""
    net, none = tiny(), torch.zeros(1, 1, *SPACE, dtype=torch.float64)
    for modality, logits in zip(MODALITIES, net(none, none), strict=True):
        bias = net.decoders[modality].head.bias  # type: ignore[union-attr]
        assert torch.equal(logits, bias[None, :, None, None, None].expand_as(logits))


def test_presence_is_told_per_sample() -> None:
    x = patches(3)
    x[1] = 0
    x[2] = 0
    x[2, 0, 3, 4, 5] = -1e-30
    assert presence(x).flatten().tolist() == [1, 0, 1]
    assert presence(x).shape == (3, 1, 1, 1, 1)


@pytest.mark.parametrize("modality", MODALITIES)
@pytest.mark.parametrize(
    "options", [{}, {"quaternion": False}, {"shared_bottleneck": False}, {"cross_fusion": False}]
)
def test_zero_filled_logits_equal_the_one_stream_graph(
    modality: Modality, options: dict[str, bool]
) -> None:
    net, x = tiny(**options), patches(2)
    found = zero_filled(net, modality, x)
    with torch.no_grad():
        for lone in (net.alone(modality, x), net.one_stream(modality)(x)):
            torch.testing.assert_close(found, lone, atol=1e-10, rtol=0)


@pytest.mark.parametrize("modality", MODALITIES)
def test_collapse_holds_in_single_precision(modality: Modality) -> None:
    net, x = tiny(dtype=torch.float32), patches(dtype=torch.float32)
    found = zero_filled(net, modality, x)
    with torch.no_grad():
        lone = net.one_stream(modality)(x)
    assert (found - lone).abs().max() <= 1e-5 * lone.abs().max()


def test_presence_is_mixed_within_a_batch() -> None:
    """Samples: both, CT alone, MR alone; each gets what it would get by itself."""
    net, ct, mr = tiny(), patches(3), patches(3, seed=1)
    mr[1], ct[2] = 0, 0
    with torch.no_grad():
        batched = net(ct, mr)
        single = [net(ct[i : i + 1], mr[i : i + 1]) for i in range(3)]
        lone = net.alone("ct", ct[1:2]), net.alone("mr", mr[2:3])
    for stream in range(2):
        expected = torch.cat([logits[stream] for logits in single])
        torch.testing.assert_close(batched[stream], expected, atol=1e-10, rtol=0)
    torch.testing.assert_close(batched[0][1:2], lone[0], atol=1e-10, rtol=0)
    torch.testing.assert_close(batched[1][2:3], lone[1], atol=1e-10, rtol=0)


@pytest.mark.parametrize("modality", MODALITIES)
def test_literal_reading_of_eq_10_does_not_collapse(modality: Modality) -> None:
    literal, exact, x = tiny(literal_absent=True), tiny(), patches()
    difference = zero_filled(literal, modality, x) - zero_filled(exact, modality, x)
    assert difference.abs().max() > 1e-4
    with torch.no_grad():
        pair = x, patches(seed=1)
        torch.testing.assert_close(literal(*pair), exact(*pair))


@pytest.mark.parametrize("modality", MODALITIES)
def test_the_literal_variant_is_deployed_and_dropped_with_both_streams(modality: Modality) -> None:
    literal, x = tiny(literal_absent=True), patches()
    expected = zero_filled(literal, modality, x)
    with torch.no_grad():
        found = literal.one_stream(modality)(x)
        dropped = literal(x, x, False)[MODALITIES.index(modality)]
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(dropped, expected)


def test_streams_inform_each_other() -> None:
    net, ct = tiny(), patches()
    with torch.no_grad():
        first, second = (net(ct, patches(seed=s))[0] for s in (1, 2))
    assert (first - second).abs().max() > 1e-6


def test_exchange_dropout_runs_each_stream_alone() -> None:
    net, ct, mr = tiny(), patches(), patches(seed=1)
    with torch.no_grad():
        dropped = net(ct, mr, False)
        torch.testing.assert_close(dropped, (net.alone("ct", ct), net.alone("mr", mr)))


def test_gates_come_per_stage_and_direction() -> None:
    net = tiny()
    with torch.no_grad():
        gates = net.gates(patches(2), patches(2, seed=1))
    assert len(gates) == 4
    for gate in (g for pair in gates for g in pair):
        assert gate.shape == (2, 1)
        assert ((gate > 0) & (gate < 1)).all()


def test_one_stream_graph_shares_no_memory_and_holds_less() -> None:
    net = tiny()
    lone = net.one_stream("ct")
    assert count(lone) < 0.55 * count(net)
    theirs = {parameter.data_ptr() for parameter in net.parameters()}
    assert not theirs & {parameter.data_ptr() for parameter in lone.parameters()}


def gate_parameters(net: AQCFNet) -> int:
    return -sum(32 * c * c + 8 * c + 1 for c in WIDTHS[1:])


def cross_fusion_parameters(net: AQCFNet) -> int:
    """Queries, keys, values, the half of the output kernels that sees the context, the gates."""
    return gate_parameters(net) - sum(4 * c * c * (3 + 27) for c in WIDTHS[1:])


def real_parameters(net: AQCFNet) -> int:
    return 3 * of_kind(net, QuaternionConv)


def bottleneck_parameters(net: AQCFNet) -> int:
    return 4 * WIDTHS[-1] * BOTTLENECK * 27 + 4 * BOTTLENECK


def attention_parameters(net: AQCFNet) -> int:
    return -of_kind(net, AttentionGate)


@pytest.mark.parametrize(
    ("flag", "difference"),
    [
        ("adaptive_gate", gate_parameters),
        ("cross_fusion", cross_fusion_parameters),
        ("quaternion", real_parameters),
        ("shared_bottleneck", bottleneck_parameters),
        ("attention_gates", attention_parameters),
    ],
)
def test_each_ablation_of_table_7_changes_the_parameters_it_names(
    flag: str, difference: Callable[[AQCFNet], int]
) -> None:
    full, ablated = tiny(), tiny(**{flag: False})
    assert difference(full) != 0
    assert count(ablated) - count(full) == difference(full)


def test_without_adaptive_gate_the_gates_are_open() -> None:
    pair = patches(), patches(seed=1)
    assert all((g == 1).all() for gates in tiny(adaptive_gate=False).gates(*pair) for g in gates)


def test_without_cross_fusion_the_streams_are_independent() -> None:
    net, ct = tiny(cross_fusion=False), patches()
    first, second = (net(ct, patches(seed=s))[0] for s in (1, 2))
    assert torch.equal(first, second)


def test_real_valued_network_has_no_quaternion_layer() -> None:
    assert of_kind(tiny(quaternion=False), QuaternionConv) == 0


def test_without_attention_gates_there_is_none() -> None:
    assert of_kind(tiny(attention_gates=False), AttentionGate) == 0


@pytest.mark.parametrize("shared", [True, False])
def test_shared_bottleneck_serves_both_streams(shared: bool) -> None:
    net, pair = tiny(shared_bottleneck=shared), (patches(), patches(seed=1))
    before = net(*pair, False)
    with torch.no_grad():
        next(net.bottlenecks["both" if shared else "ct"].parameters()).mul_(-1)
    ct, mr = (not torch.equal(a, b) for a, b in zip(before, net(*pair, False), strict=True))
    assert ct
    assert mr is shared


def test_paper_configuration_has_31_5_million_parameters(capsys: pytest.CaptureFixture) -> None:
    with torch.device("meta"):
        parameters = count(AQCFNet(NetworkConfig()))
    with capsys.disabled():
        print(f"\nA-QCF-Net as published: {parameters / 1e6:.2f} M parameters")
    assert parameters == pytest.approx(31.5e6, rel=0.02)


def test_every_parameter_learns_from_an_exchange_and_the_lone_paths_leave_only_the_fusion() -> None:
    net, pair = tiny(), (patches(), patches(seed=1))
    sum(logits.square().mean() for logits in net(*pair)).backward()
    assert not [n for n, p in net.named_parameters() if p.grad is None or not p.grad.any()]
    net.zero_grad()
    sum(logits.square().mean() for logits in net(*pair, False)).backward()
    idle = {n.split(".")[2] for n, p in net.named_parameters() if p.grad is None}
    assert idle == {"query", "key", "value", "gate"}


def test_maps_of_depth_two_stay_in_single_precision_under_autocast() -> None:
    """Of 16 slices the second stage leaves 4, the third 2, the last 1."""
    net, seen = tiny(dtype=torch.float32), {}

    def watch(name: str) -> None:
        module = net.get_submodule(name)
        module.register_forward_hook(lambda _, __, out: seen.update({name: out.dtype}))

    for name in ("fusion.1.out.conv", "fusion.2.out.conv", "fusion.3.out.conv"):
        watch(name)
    pair = patches(dtype=torch.float32), patches(seed=1, dtype=torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        logits = net(*pair)[0]
    assert list(seen.values()) == [torch.bfloat16, torch.float32, torch.bfloat16]
    assert torch.isfinite(logits).all()


@pytest.mark.parametrize("exchange", [True, False])
def test_recomputed_activations_give_the_same_gradients_and_keep_less(exchange: bool) -> None:
    pair = patches(dtype=torch.float32), patches(seed=1, dtype=torch.float32)
    found = []
    for recompute in (False, True):
        net, kept = tiny(dtype=torch.float32), []
        net.recompute = recompute

        def keep(x: Tensor, kept: list[Tensor] = kept) -> Tensor:
            kept.append(x)
            return x

        with saved_tensors_hooks(keep, lambda x: x):
            loss = sum(logits.square().mean() for logits in net(*pair, exchange))
        loss.backward()
        gradients = {n: p.grad for n, p in net.named_parameters() if p.grad is not None}
        found.append((loss.detach(), gradients, sum(x.numel() for x in kept)))
    (loss, gradients, kept), (again, same, fewer) = found
    assert torch.equal(loss, again)
    torch.testing.assert_close(gradients, same, rtol=0, atol=1e-6)
    assert fewer < kept / 3


def test_recomputing_costs_nothing_where_no_gradient_is_wanted() -> None:
    net, pair = tiny(), (patches(), patches(seed=1))
    with torch.no_grad():
        expected = net(*pair)
        net.recompute = True
        torch.testing.assert_close(net(*pair), expected, rtol=0, atol=0)
        assert net.one_stream("ct")(pair[0]).shape == expected[0].shape
