"""Saliency of a whole volume: the windows of inference, blended as their logits are."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import nn

from ..backends.torch import TorchBackend
from ..sliding import importance, plan, slide
from ..types import ImageArray, ShapeZYX
from .cam import Method, cam


@dataclass(frozen=True)
class Target:
    """What is to be explained, and how: a class, at a layer, by a method."""

    class_index: int
    layer: str
    method: Method = "gradcam++"


def explain_volume(
    net: nn.Module,
    array: ImageArray,
    region: NDArray[np.bool_] | None,
    target: Target,
    *,
    patch: ShapeZYX,
    overlap: float,
) -> ImageArray:
    """The saliency of ``target`` over a prepared volume ``(z, y, x)``, not normalised.

    Every window of the sliding inference is explained as an image of its own, for the part of
    ``region`` (all of it when None) that lies in it, and the maps are blended with the Gaussian
    weights of the logits. A window without any of the region, or all zeros, counts as a map of
    zeros. ``net`` and the errors: see ``cam``; ``ConfigError`` where the patch does not fit.
    """
    z, y, x = array.shape
    total, weight = np.zeros((z, y, x), np.float32), np.zeros((z, y, x), np.float32)
    counts = importance(patch)
    for window in plan((z, y, x), patch, overlap):
        weight[window.box] += counts
        part = None if region is None else region[window.box]
        if (part is None or part.any()) and array[window.box].any():
            image = array[window.box]
            found = cam(net, target.layer, image, target.class_index, part, target.method)
            total[window.box] += counts * found
    return total / weight


def predicted_region(
    net: nn.Module,
    array: ImageArray,
    class_index: int,
    *,
    patch: ShapeZYX,
    overlap: float,
    classes: int,
) -> NDArray[np.bool_]:
    """Where the blended logits of a prepared volume are largest for the class, ``(z, y, x)``."""
    backend = TorchBackend(net, patch)
    scores = slide(array, patch, overlap, backend.logits, classes)
    region: NDArray[np.bool_] = scores.argmax(axis=0) == class_index
    return region
