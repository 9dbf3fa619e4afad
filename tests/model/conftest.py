"""A phantom with a liver and two lesions, a model manifest for it, and a backend that needs no
network: it reads the classes off the intensities."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import pytest

from model.errors import OutOfMemoryError
from model.resample import reorient
from model.spec import (
    FixedIntensity,
    ModalitySpec,
    ModelSpec,
    NetworkConfig,
    PercentileIntensity,
    PostprocessRules,
    Profile,
)
from model.types import Batch, MaskArray
from model.volume import Volume

AIR, BODY, LIVER_HU, TUMOUR_HU = -1000, 20, 90, 150
SPACING_XYZ = (1.6, 1.3, 2.9)


class Phantom(NamedTuple):
    volume: Volume
    mask: MaskArray


@dataclass
class IntensityBackend:
    """Intensity in [0, 1] -> class scores; optionally out of memory above a batch of 1."""

    name: str = "fake-cpu-f32"
    engine: str = "fake"
    precision: str = "f32"
    small_memory: bool = False
    batches: list[int] = field(default_factory=list)

    def logits(self, batch: Batch) -> Batch:
        self.batches.append(len(batch))
        if self.small_memory and len(batch) > 1:
            raise OutOfMemoryError("too much")
        image = batch[:, 0]
        liver, tumour = 20 * (image - 0.37), 40 * (image - 0.54)
        return np.stack([np.zeros_like(image), liver, tumour], axis=1).astype(np.float32)


@pytest.fixture
def backend() -> IntensityBackend:
    return IntensityBackend()


@pytest.fixture(scope="session")
def spec() -> ModelSpec:
    def view(orientation: str, intensity: FixedIntensity | PercentileIntensity) -> ModalitySpec:
        return ModalitySpec(
            orientation=orientation, spacing_mm=(2, 2, 2), intensity=intensity, patch=(32, 48, 48)
        )

    return ModelSpec(
        id="phantom",
        version="1",
        network=NetworkConfig(),
        modalities={
            "ct": view("RAS", FixedIntensity(lo=-16, hi=176)),
            "mr": view("LAS", PercentileIntensity(lo=1, hi=99.5)),
        },
        profiles={"balanced": Profile(overlap=0.5), "fast": Profile(overlap=0.25)},
        postprocess={"ct": PostprocessRules(), "mr": PostprocessRules()},
    )


@pytest.fixture(scope="session")
def phantom() -> Phantom:
    """CT, (50, 90, 110) voxels of 2.9 x 1.3 x 1.6 mm, LPS axes turned by 12 degrees about z; the
    liver lies in the patient's right, off centre in every axis."""
    shape = (50, 90, 110)
    mask = np.zeros(shape, np.uint8)
    step = np.array(SPACING_XYZ[::-1])
    at = [np.arange(n) * s for n, s in zip(shape, step, strict=True)]
    z, y, x = np.meshgrid(*at, indexing="ij")

    def ball(centre: tuple[float, float, float], radii: tuple[float, float, float]) -> np.ndarray:
        parts = zip((z, y, x), centre, radii, strict=True)
        return sum(((a - c) / r) ** 2 for a, c, r in parts) <= 1

    body = ball((72, 58, 88), (200, 54, 82))
    mask[ball((60, 50, 60), (44, 32, 38))] = 1
    mask[ball((60, 52, 62), (14, 12, 15))] = 2
    mask[ball((84, 44, 48), (7, 6, 8))] = 2
    noise = np.random.default_rng(0).normal(0, 3, shape)
    array = np.full(shape, AIR, np.float64)
    array[body], array[mask == 1], array[mask == 2] = BODY, LIVER_HU, TUMOUR_HU
    angle = np.deg2rad(12)
    affine = np.eye(4)
    affine[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    affine[:3, :3] *= SPACING_XYZ
    affine[:3, 3] = [-80, -60, 400]
    return Phantom(Volume((array + noise).astype(np.int16), affine, "ct"), mask)


@pytest.fixture(scope="session")
def turned(phantom: Phantom) -> Callable[[str], Phantom]:
    """The phantom stored in another orientation: other arrays, the same place in the patient."""

    def turn(orientation: str) -> Phantom:
        array, affine = reorient(phantom.volume.array, phantom.volume.affine, orientation)
        mask, _ = reorient(phantom.mask, phantom.volume.affine, orientation)
        return Phantom(
            Volume(np.ascontiguousarray(array), affine, "ct"),
            np.ascontiguousarray(mask).astype(np.uint8),
        )

    return turn
