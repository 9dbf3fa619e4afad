"""Grad-CAM's weights against finite differences, Grad-CAM++'s against nested derivatives and a hand
computation."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from model.errors import ConfigError, InputError
from model.explain import (
    METHODS,
    Method,
    Target,
    cam,
    channel_weights,
    explain_volume,
    feature_maps,
    layers,
    normalised,
    predicted_region,
    tap,
)
from model.network import AQCFNet, OneStreamNet
from model.sliding import importance
from model.spec import NetworkConfig

SHAPE = (16, 16, 32)


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def net() -> OneStreamNet:
    """One stream of a tiny A-QCF-Net, in float64."""
    torch.manual_seed(0)
    whole = AQCFNet(NetworkConfig(widths=(1, 2, 2, 2, 4), bottleneck=4))
    return whole.one_stream("mr").double().eval()


@pytest.fixture(scope="module")
def image() -> np.ndarray:
    return np.random.default_rng(0).random(SHAPE).astype(np.float32)


@pytest.fixture(scope="module")
def region() -> np.ndarray:
    mask = np.zeros(SHAPE, np.bool_)
    mask[4:12, 5:11, 8:20] = True
    return mask


class Toy(nn.Module):
    """A ReLU layer and a linear head: what follows the layer is linear, as eq. 19 assumes."""

    def __init__(self, channels: int = 2, classes: int = 2) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv3d(1, channels, 3, padding=1), nn.ReLU(inplace=True))
        self.head = nn.Conv3d(channels, classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.body(x))
        return logits


class Squared(Toy):
    """Changes its maps in place after the layer, and is not linear behind it."""

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.body(x).mul_(2.0)) ** 2
        return logits


def toy(kind: type[Toy] = Toy, **kwargs: int) -> Toy:
    torch.manual_seed(1)
    return kind(**kwargs).double().eval()


class Nudge:
    """Adds a little to one channel of a layer's output, everywhere."""

    def __init__(self, module: nn.Module, channel: int, by: float) -> None:
        self.module, self.channel, self.by = module, channel, by

    def __call__(self, _module: nn.Module, _inputs: object, output: Tensor) -> Tensor:
        moved = output.clone()
        moved[:, self.channel] += self.by
        return moved


def score(
    net: nn.Module, image: np.ndarray, region: np.ndarray, nudge: Nudge | None = None
) -> float:
    handle = nudge.module.register_forward_hook(nudge) if nudge else None
    with torch.no_grad():
        logits = net(torch.from_numpy(image)[None, None].double())
    if handle:
        handle.remove()
    return float(logits[0, 1][torch.from_numpy(region)].sum())


@pytest.mark.parametrize("layer", ["encoder.stem", "fuse.1", "bottleneck", "decoder.levels.2"])
def test_gradcam_weights_are_the_slopes_of_the_score(
    net: OneStreamNet, image: np.ndarray, region: np.ndarray, layer: str
) -> None:
    """Z w_k is how fast the score rises as channel k rises everywhere: central differences."""
    activation, gradient = tap(net, layer, image, 1, region)
    weights = channel_weights(activation, gradient, "gradcam")[0]
    voxels, step = activation[0, 0].numel(), 1e-6
    module = net.get_submodule(layer)
    for channel, weight in enumerate(weights):
        up, down = (
            score(net, image, region, Nudge(module, channel, sign * step)) for sign in (1, -1)
        )
        assert (up - down) / (2 * step) == pytest.approx(voxels * float(weight), rel=1e-4, abs=1e-5)


def test_gradcam_plus_plus_weights_from_third_derivatives() -> None:
    """Eq. 10 of Chattopadhay et al., with the derivatives of exp(y) taken one by one:
    alpha = Y'' / (2 Y'' + sum(A) Y''')."""
    net = toy(classes=3)
    image = np.random.default_rng(2).random((2, 2, 3)).astype(np.float32)
    part = np.ones(image.shape, np.bool_)
    part[0] = False
    activation, gradient = tap(net, "body", image, 2, part)
    found = channel_weights(activation, gradient, "gradcam++")[0]

    def link(maps: Tensor) -> Tensor:
        return torch.exp(net.head(maps)[0, 2][torch.from_numpy(part)].sum())

    maps = activation.clone().requires_grad_()
    scale = float(link(activation).detach())
    for channel in range(2):
        total, weight = float(activation[0, channel].sum()), 0.0
        for voxel in np.ndindex(image.shape):
            value, powers = link(maps), []
            for _ in range(3):
                (slope,) = torch.autograd.grad(value, maps, create_graph=True)
                value = slope[(0, channel, *voxel)]
                powers.append(float(value.detach()))
            first, second, third = powers
            below = 2 * second + total * third
            weight += second / below * max(first, 0.0) if below else 0.0
        assert weight == pytest.approx(scale * float(found[channel]))
    assert float(found.max()) > 0


def test_gradcam_plus_plus_by_hand() -> None:
    """A = (1, 3), y = 0.5 (A1 + A2): g = 0.5, alpha = 1 / (2 + 4 x 0.5) = 1/4, w = 2/8."""
    activation = torch.tensor([1.0, 3.0]).reshape(1, 1, 1, 1, 2)
    gradient = torch.full_like(activation, 0.5)
    assert float(channel_weights(activation, gradient, "gradcam++")) == pytest.approx(0.25)
    assert float(channel_weights(activation, -gradient, "gradcam++")) == 0.0
    assert float(channel_weights(activation, gradient, "gradcam")) == pytest.approx(0.5)


def test_gradcam_of_a_linear_head_is_the_rectified_logit() -> None:
    """w_k = |R| / Z x head weight, so the map is the logit without its bias."""
    net = toy()
    image = np.random.default_rng(3).random((4, 5, 6)).astype(np.float32)
    with torch.no_grad():
        logits = net(torch.from_numpy(image)[None, None].double())[0, 1] - net.head.bias[1]
    found = cam(net, "body", image, 1, method="gradcam")
    np.testing.assert_allclose(found, torch.relu(logits).numpy(), atol=1e-6)


def test_layers_that_are_changed_in_place_keep_their_maps() -> None:
    net, image = toy(Squared), np.ones((2, 2, 2), np.float32)
    activation, gradient = tap(net, "body", image, 0)
    with torch.no_grad():
        maps = net.body(torch.ones(1, 1, 2, 2, 2, dtype=torch.float64))
        slope = 4 * net.head(2 * maps)[:, :1] * net.head.weight[0].reshape(1, -1, 1, 1, 1)
    torch.testing.assert_close(activation, maps)
    torch.testing.assert_close(gradient, slope)


@pytest.mark.parametrize("method", METHODS)
def test_a_flipped_image_has_a_flipped_map(method: Method) -> None:
    net = toy()
    with torch.no_grad():
        kernel = net.body[0].weight
        kernel.copy_((kernel + kernel.flip(4)) / 2)
    image = np.random.default_rng(4).random((4, 6, 8)).astype(np.float32)
    mask = image > 0.6
    found = cam(net, "body", image, 1, mask, method)
    flipped = cam(net, "body", image[:, :, ::-1], 1, mask[:, :, ::-1].copy(), method)
    assert found.max() > 0
    np.testing.assert_allclose(flipped, found[:, :, ::-1], atol=1e-6)


def test_the_map_is_upsampled_to_the_image_and_follows_the_region(
    net: OneStreamNet, image: np.ndarray, region: np.ndarray
) -> None:
    whole, part = (cam(net, "decoder.levels.1", image, 2, r) for r in (None, region))
    assert whole.shape == part.shape == SHAPE
    assert whole.dtype == np.float32
    assert (part >= 0).all()
    assert not np.allclose(normalised(whole), normalised(part))
    assert normalised(part).max() == 1.0
    assert not normalised(np.zeros(SHAPE, np.float32)).any()


def test_hooks_are_gone_afterwards(net: OneStreamNet, image: np.ndarray) -> None:
    before = score(net, image, np.ones(SHAPE, np.bool_))
    cam(net, "bottleneck", image, 1)
    feature_maps(net, image, ["bottleneck"])
    with pytest.raises(ConfigError):
        cam(net, "bottleneck", image, 9)
    assert not any(module._forward_hooks for module in net.modules())
    assert score(net, image, np.ones(SHAPE, np.bool_)) == before


@pytest.mark.parametrize(
    ("layer", "target", "method", "message"),
    [
        ("decoder.level.2", 1, "gradcam", "near to it: decoder.levels.2"),
        ("bottleneck", 3, "gradcam", "class 3: the network has classes 0 to 2"),
        ("bottleneck", 1, "lime", "'lime': choose gradcam or gradcam++"),
        ("decoder.levels", 1, "gradcam", "ran 0 times"),
        ("", 1, "gradcam", "no layer ''"),
    ],
)
def test_what_cannot_be_explained_is_refused(
    net: OneStreamNet, image: np.ndarray, layer: str, target: int, method: str, message: str
) -> None:
    with pytest.raises(ConfigError) as refused:
        cam(net, layer, image, target, method=method)  # type: ignore[arg-type]
    assert message in refused.value.message


def test_a_region_of_another_shape_is_refused(net: OneStreamNet, image: np.ndarray) -> None:
    with pytest.raises(InputError, match="the region has shape"):
        cam(net, "bottleneck", image, 1, np.ones((2, 2, 2), np.bool_))


def test_layers_lists_maps_in_running_order(net: OneStreamNet) -> None:
    found = layers(net, SHAPE)
    assert found["encoder.stem"] == (4, *SHAPE)
    assert found["bottleneck"] == (16, 1, 1, 2)
    assert "decoder.levels" not in found
    order = list(found)
    assert order.index("encoder.stem") < order.index("fuse.1") < order.index("bottleneck")


def test_feature_maps_are_mean_absolute_activations() -> None:
    net, image = toy(), np.random.default_rng(5).random((2, 3, 4)).astype(np.float32)
    with torch.no_grad():
        first = net.body[0](torch.from_numpy(image)[None, None].double())
    found = feature_maps(net, image, ["head", "body.0"])
    assert list(found) == ["head", "body.0"]
    np.testing.assert_allclose(found["body.0"], first[0].abs().mean(0).numpy(), atol=1e-6)


def test_one_window_of_a_volume_is_that_patch_alone(
    net: OneStreamNet, image: np.ndarray, region: np.ndarray
) -> None:
    target = Target(1, "decoder.levels.2")
    found = explain_volume(net, image, region, target, patch=SHAPE, overlap=0.5)
    np.testing.assert_allclose(found, cam(net, "decoder.levels.2", image, 1, region), atol=1e-6)


def test_windows_are_blended_and_those_without_the_region_are_zero(net: OneStreamNet) -> None:
    wide = np.random.default_rng(6).random((16, 16, 48)).astype(np.float32)
    mask = np.zeros(wide.shape, np.bool_)
    mask[4:12, 4:12, :10] = True
    target = Target(1, "decoder.levels.2", "gradcam")
    found = explain_volume(net, wide, mask, target, patch=SHAPE, overlap=0.5)
    left = cam(net, target.layer, wide[:, :, :32], 1, mask[:, :, :32], "gradcam")
    weight = importance(SHAPE)
    share = weight[:, :, 16:] / (weight[:, :, 16:] + weight[:, :, :16])
    np.testing.assert_allclose(found[:, :, :16], left[:, :, :16], atol=1e-6)
    np.testing.assert_allclose(found[:, :, 16:32], left[:, :, 16:] * share, atol=1e-6)
    assert left.max() > 0
    assert not found[:, :, 32:].any()


def test_an_empty_region_and_an_empty_volume_have_no_saliency(
    net: OneStreamNet, image: np.ndarray
) -> None:
    target, nothing = Target(1, "bottleneck"), np.zeros(SHAPE, np.bool_)
    assert not explain_volume(net, image, nothing, target, patch=SHAPE, overlap=0).any()
    black = np.zeros(SHAPE, np.float32)
    assert not explain_volume(net, black, None, target, patch=SHAPE, overlap=0).any()


def test_the_predicted_region_is_where_the_class_wins(image: np.ndarray) -> None:
    torch.manual_seed(0)
    net = AQCFNet(NetworkConfig(widths=(1, 2, 2, 2, 4), bottleneck=4)).one_stream("ct").eval()
    found = [predicted_region(net, image, c, patch=SHAPE, overlap=0, classes=3) for c in range(3)]
    assert (np.sum(found, axis=0) == 1).all()
    with torch.no_grad():
        best = net(torch.from_numpy(image)[None, None])[0].argmax(0).numpy()
    assert (found[1] == (best == 1)).mean() > 0.999
