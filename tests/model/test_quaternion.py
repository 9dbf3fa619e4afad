import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from quaternions import quaternion_cat
from torch.nn import functional as F

from model.errors import ConfigError
from model.quaternion import QuaternionConv, quaternion_channels, real_kernel

ONE, QI, QJ, QK = np.eye(4)
PRODUCTS = [
    (QI, QJ, QK), (QJ, QK, QI), (QK, QI, QJ),
    (QJ, QI, -QK), (QK, QJ, -QI), (QI, QK, -QJ),
    (QI, QI, -ONE), (QJ, QJ, -ONE), (QK, QK, -ONE),
    (ONE, QI, QI), (QI, ONE, QI), (ONE, QK, QK), (QK, ONE, QK),
]  # fmt: skip
quaternions = st.lists(st.floats(-10, 10), min_size=4, max_size=4).map(np.array)


def hamilton(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The product as textbooks write it, independent of the table under test."""
    return np.array(
        [
            a[0] * b[0] - a[1] * b[1] - a[2] * b[2] - a[3] * b[3],
            a[0] * b[1] + a[1] * b[0] + a[2] * b[3] - a[3] * b[2],
            a[0] * b[2] - a[1] * b[3] + a[2] * b[0] + a[3] * b[1],
            a[0] * b[3] + a[1] * b[2] - a[2] * b[1] + a[3] * b[0],
        ]
    )


def times(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """``left * right``: ``right`` convolved with the 1x1x1 kernel ``left``."""
    layer = QuaternionConv(4, 4, 1).double()
    weight = torch.from_numpy(left).reshape(4, 1, 1, 1, 1, 1)
    image = torch.from_numpy(right).reshape(1, 4, 1, 1, 1)
    return layer.convolve(image, weight).numpy().ravel()


def blocks(array: np.ndarray, channels: int) -> np.ndarray:
    """``(4C, *space)`` to quaternions ``(4, C, *space)``."""
    return array.reshape(4, channels, *array.shape[1:])


def naive(x: np.ndarray, weight: np.ndarray, stride: int, padding: int) -> np.ndarray:
    """Convolution of one map ``(4, A, *space)`` with ``(4, B, A, *kernel)``, product by product."""
    kernel = weight.shape[3:]
    sides = [(n + 2 * padding - k) // stride + 1 for n, k in zip(x.shape[2:], kernel, strict=True)]
    padded = np.pad(x, [(0, 0), (0, 0)] + [(padding, padding)] * len(kernel))
    result = np.zeros((4, weight.shape[1], *sides))
    for out, into in np.ndindex(weight.shape[1:3]):
        for at, tap in itertools.product(np.ndindex(*sides), np.ndindex(*kernel)):
            place = tuple(a * stride + t for a, t in zip(at, tap, strict=True))
            factor = weight[(slice(None), out, into, *tap)]
            value = padded[(slice(None), into, *place)]
            result[(slice(None), out, *at)] += hamilton(factor, value)
    return result


def naive_transposed(x: np.ndarray, weight: np.ndarray, stride: int, padding: int) -> np.ndarray:
    """Scatter ``(4, A, *space)`` through ``(4, A, B, *kernel)``."""
    kernel = weight.shape[3:]
    sides = [(n - 1) * stride + k for n, k in zip(x.shape[2:], kernel, strict=True)]
    result = np.zeros((4, weight.shape[2], *sides))
    for into, out in np.ndindex(weight.shape[1:3]):
        for at, tap in itertools.product(np.ndindex(x.shape[2:]), np.ndindex(*kernel)):
            place = tuple(a * stride + t for a, t in zip(at, tap, strict=True))
            factor, value = weight[(slice(None), into, out, *tap)], x[(slice(None), into, *at)]
            result[(slice(None), out, *place)] += hamilton(factor, value)
    return result[(slice(None), slice(None), *[slice(padding, n - padding) for n in sides])]


@pytest.mark.parametrize(("left", "right", "product"), PRODUCTS)
def test_units_multiply_as_hamilton_says(
    left: np.ndarray, right: np.ndarray, product: np.ndarray
) -> None:
    np.testing.assert_array_equal(times(left, right), product)


@settings(deadline=None)
@given(quaternions, quaternions)
def test_norm_is_multiplicative(left: np.ndarray, right: np.ndarray) -> None:
    expected = np.linalg.norm(left) * np.linalg.norm(right)
    assert np.linalg.norm(times(left, right)) == pytest.approx(expected, rel=1e-12, abs=1e-150)


@settings(deadline=None)
@given(quaternions, quaternions, quaternions)
def test_product_is_associative(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> None:
    np.testing.assert_allclose(times(times(a, b), c), times(a, times(b, c)), atol=1e-9)


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("transposed", [False, True])
def test_convolution_equals_the_naive_loop(rank: int, stride: int, transposed: bool) -> None:
    torch.manual_seed(rank)
    layer = QuaternionConv(8, 4, 3, stride=stride, rank=rank, transposed=transposed).double()
    x = torch.randn(1, 8, *[5, 4, 3][:rank], dtype=torch.float64)
    found = layer(x)[0].detach().numpy()
    loop = naive_transposed if transposed else naive
    expected = loop(blocks(x[0].numpy(), 2), layer.weight.detach().numpy(), stride, 1)
    np.testing.assert_allclose(blocks(found, 1), expected, atol=1e-12)


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_holds_a_quarter_of_the_real_parameters(rank: int) -> None:
    layer = QuaternionConv(12, 20, 3, rank=rank)
    real = 12 * 20 * 3**rank
    assert sum(p.numel() for p in layer.parameters()) * 4 == real
    assert real_kernel(layer.weight).numel() == real


@pytest.mark.parametrize("channels", [(6, 8), (8, 6), (0, 4), (-4, 4)])
def test_refuses_channels_that_are_no_multiple_of_four(channels: tuple[int, int]) -> None:
    bad = next(c for c in channels if c <= 0 or c % 4)
    with pytest.raises(ConfigError, match=rf"^{bad} real channels"):
        QuaternionConv(*channels, 3)


def test_refuses_other_ranks() -> None:
    with pytest.raises(ConfigError, match="rank 4"):
        QuaternionConv(4, 4, 3, rank=4)


def test_counts_quaternion_channels() -> None:
    assert quaternion_channels(12) == 3


def test_polar_weights_have_the_variance_of_he() -> None:
    torch.manual_seed(0)
    weight = QuaternionConv(64, 128, 3).weight.detach()
    he = 2 / ((1 + 0.01**2) * 64 * 27)
    assert weight.square().mean().item() == pytest.approx(he, rel=0.03)
    assert weight.mean().item() == pytest.approx(0, abs=3 * math.sqrt(he / weight.numel()))
    modulus = weight.norm(dim=0)  # chi with four degrees of freedom: mean 3/4 sqrt(2 pi) sigma
    assert modulus.mean().item() == pytest.approx(0.75 * math.sqrt(2 * math.pi * he), rel=0.02)


def test_outputs_vary_as_those_of_a_real_layer() -> None:
    torch.manual_seed(1)
    x = torch.randn(1, 64, 12, 12, 12)
    real = torch.nn.init.kaiming_normal_(torch.empty(64, 64, 3, 3, 3), a=0.01)
    expected = F.conv3d(x, real).var().item()
    kernel = real_kernel(QuaternionConv(64, 64, 3).weight.detach())
    assert F.conv3d(x, kernel).var().item() == pytest.approx(expected, rel=0.1)


def test_concatenation_keeps_quaternions_whole() -> None:
    """A layer over both maps equals the sum of layers over each."""
    torch.manual_seed(2)
    layer = QuaternionConv(12, 4, 3).double()
    first = torch.randn(2, 4, 3, 3, 3, dtype=torch.float64)
    second = torch.randn(2, 8, 3, 3, 3, dtype=torch.float64)
    parts = (first, layer.weight[:, :, :1]), (second, layer.weight[:, :, 1:])
    apart = sum(layer.convolve(x, weight) for x, weight in parts)
    torch.testing.assert_close(layer(quaternion_cat(first, second)), apart)
    torch.testing.assert_close(layer(first, second), apart)
