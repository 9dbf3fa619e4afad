"""3-D Grad-CAM and Grad-CAM++ at any layer of a segmentation network, for one patch.

A segmentation network has a logit z_c(v) per class and voxel, before the softmax. The score of a
class c and a region R of voxels is their sum (as in Seg-Grad-CAM, Vinogradova et al. 2020):

    y = sum over v in R of z_c(v).

A_k is channel k of the layer's output, g_k(u) = dy/dA_k(u) at its voxel u, Z its number of voxels.
Quaternion maps count as their 4 x width real channels. The saliency map is
ReLU(sum over k of w_k A_k), upsampled trilinearly to the patch, with

* Grad-CAM (Selvaraju et al. 2017, eq. 1-2): w_k = 1/Z sum over u of g_k(u);
* Grad-CAM++ (Chattopadhay et al. 2018): w_k = sum over u of alpha_k(u) ReLU(g_k(u)). With the class
  score exp(y), whose higher derivatives are exp(y) times powers of g where the rest of the network
  is piecewise linear, their eq. 19 is alpha = g^2 / (2 g^2 + S_k g^3), S_k the sum of A_k; only
  g > 0 counts, so alpha = 1 / (2 + S_k g). The common factor exp(y) is left out: it scales all
  channels alike, and overflows for a region of many voxels. Their maps come from a ReLU; leaky
  ones may have a negative sum, at which alpha has a pole, so S_k sums ReLU(A_k).
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ..errors import ConfigError, InputError
from ..types import ImageArray
from .features import as_input, map_of, module_of, upsampled

Method: TypeAlias = Literal["gradcam", "gradcam++"]
METHODS: tuple[Method, ...] = get_args(Method)

_SPACE = (2, 3, 4)


def cam(
    net: nn.Module,
    layer: str,
    image: ImageArray,
    target: int,
    region: NDArray[np.bool_] | None = None,
    method: Method = "gradcam++",
) -> ImageArray:
    """The saliency map of class ``target`` in ``region``, ``(z, y, x)`` like ``image``, >= 0.

    ``net``: ``(n, 1, z, y, x)`` to logits ``(n, classes, z, y, x)``, in evaluation mode.
    ``region``: boolean, the shape of ``image``; the whole patch when None. The map is not
    normalised, so that those of neighbouring patches can be blended; see ``normalised``.

    Raises ``ConfigError`` for an unknown method, layer or class; ``InputError`` for a region of
    another shape.
    """
    if method not in METHODS:
        raise ConfigError(f"method {method!r}: choose {' or '.join(METHODS)}")
    activation, gradient = tap(net, layer, image, target, region)
    weights = channel_weights(activation, gradient, method)
    joined = (weights[:, :, None, None, None] * activation).sum(1)
    return upsampled(torch.relu(joined), image.shape)


def tap(
    net: nn.Module,
    layer: str,
    image: ImageArray,
    target: int,
    region: NDArray[np.bool_] | None = None,
) -> tuple[Tensor, Tensor]:
    """The layer's maps A and dy/dA, both ``(1, k, z, y, x)``; see ``cam``."""
    if region is not None and region.shape != image.shape:
        raise InputError(f"the region has shape {region.shape}, the image {image.shape}")
    with torch.enable_grad(), _tapped(net, layer) as taken:
        logits = net(as_input(net, image))
        if not 0 <= target < logits.shape[1]:
            raise ConfigError(f"class {target}: the network has classes 0 to {logits.shape[1] - 1}")
        if len(taken) != 1:
            raise ConfigError(f"layer {layer!r} ran {len(taken)} times; choose one that runs once")
        of_class = logits[0, target]
        chosen = (
            of_class if region is None else of_class[torch.from_numpy(region).to(logits.device)]
        )
        (gradient,) = torch.autograd.grad(chosen.sum(), taken[0], allow_unused=True)
    maps = taken[0].detach()
    return maps, torch.zeros_like(maps) if gradient is None else gradient


def channel_weights(activation: Tensor, gradient: Tensor, method: Method) -> Tensor:
    """w_k of the module's docstring, ``(n, k)``; both arguments are ``(n, k, z, y, x)``."""
    if method == "gradcam":
        return gradient.mean(_SPACE)
    rising = torch.relu(gradient)
    total = torch.relu(activation).sum(_SPACE, keepdim=True)
    return (rising / (2 + total * rising)).sum(_SPACE)


def normalised(saliency: ImageArray) -> ImageArray:
    """Divided by its maximum, so in [0, 1]; a map of zeros stays one."""
    top = float(saliency.max())
    scaled: ImageArray = saliency / np.float32(top) if top > 0 else saliency.copy()
    return scaled


@contextmanager
def _tapped(net: nn.Module, layer: str) -> Iterator[list[Tensor]]:
    """The layer's output as the start of the graph. What follows works on a copy: layers that
    change their input in place would change the maps."""
    taken: list[Tensor] = []

    def take(_module: nn.Module, _inputs: Any, output: Any) -> Tensor:
        start = map_of(layer, output).detach().requires_grad_()
        taken.append(start)
        return start.clone()

    handle = module_of(net, layer).register_forward_hook(take)
    try:
        yield taken
    finally:
        handle.remove()
