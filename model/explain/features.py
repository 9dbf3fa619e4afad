"""The maps inside a network (figure 8), and the names they go by."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from difflib import get_close_matches
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.hooks import RemovableHandle

from ..errors import ConfigError
from ..types import ImageArray, ShapeZYX


def layers(net: nn.Module, shape: ShapeZYX) -> dict[str, tuple[int, ...]]:
    """Names of the layers that can be explained, with the shape ``(channels, z, y, x)`` of their
    maps for an input of ``shape``, in the order in which they end.

    ``net``: ``(n, 1, z, y, x)`` to logits, in evaluation mode.
    """
    names = [name for name, _ in net.named_modules() if name]
    with watched(net, names) as seen, torch.no_grad():
        net(as_input(net, np.zeros(shape, np.float32)))
    return {name: tuple(maps.shape[1:]) for name, maps in seen if _is_map(maps)}


def feature_maps(net: nn.Module, image: ImageArray, names: Sequence[str]) -> dict[str, ImageArray]:
    """The mean absolute activation over the channels of each layer, upsampled trilinearly.

    ``image``: ``(z, y, x)``, a size that ``net`` takes; each map has its shape. Quaternion maps
    count as their 4 x width real channels. Raises ``ConfigError`` for an unknown layer, or one
    that gives no map.
    """
    with watched(net, names) as seen, torch.no_grad():
        net(as_input(net, image))
    maps = {name: upsampled(map_of(name, found).abs().mean(1), image.shape) for name, found in seen}
    return {name: maps[name] for name in names if name in maps}


def module_of(net: nn.Module, layer: str) -> nn.Module:
    """The layer of that name. Raises ``ConfigError`` with names that are near to it."""
    modules: dict[str, nn.Module] = dict(net.named_modules())
    if layer and layer in modules:
        return modules[layer]
    names = [name for name in modules if name]
    near = get_close_matches(layer, names, 5, 0.4) or names[:5]
    raise ConfigError(f"the network has no layer {layer!r}; near to it: {', '.join(near)}")


def map_of(layer: str, output: object) -> Tensor:
    """What a layer gave, refused where it is not a map of one image."""
    if isinstance(output, Tensor) and _is_map(output):
        return output
    raise ConfigError(f"layer {layer!r} gives no map (1, channels, z, y, x); choose another")


def as_input(net: nn.Module, image: ImageArray) -> Tensor:
    """``(z, y, x)`` as ``(1, 1, z, y, x)``, of the dtype and on the device of the weights."""
    weight = next(net.parameters())
    return torch.from_numpy(np.ascontiguousarray(image))[None, None].to(weight)


def upsampled(maps: Tensor, shape: Sequence[int]) -> ImageArray:
    """``(1, z, y, x)`` trilinearly on a grid of ``shape``, half a voxel from edge to edge."""
    fine = F.interpolate(maps[None], tuple(shape), mode="trilinear", align_corners=False)
    return np.asarray(fine[0, 0].detach().float().cpu().numpy(), np.float32)


@contextmanager
def watched(net: nn.Module, names: Sequence[str]) -> Iterator[list[tuple[str, Any]]]:
    """What the named layers give, in the order in which they end."""
    seen: list[tuple[str, Any]] = []
    with ExitStack() as stack:
        for name in names:
            stack.callback(_watch(net, name, seen).remove)
        yield seen


def _watch(net: nn.Module, name: str, seen: list[tuple[str, Any]]) -> RemovableHandle:
    def keep(_module: nn.Module, _inputs: Any, output: Any) -> None:
        seen.append((name, output.clone() if isinstance(output, Tensor) else output))

    return module_of(net, name).register_forward_hook(keep)


def _is_map(output: Any) -> bool:
    return isinstance(output, Tensor) and output.ndim == 5 and len(output) == 1
