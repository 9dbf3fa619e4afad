"""Draw one random patch of a sample: place, geometry, intensities (section 3.1.3)."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from monai.transforms.compose import Compose
from monai.transforms.intensity.array import RandBiasField, RandGaussianNoise, RandGaussianSmooth
from numpy.random import Generator
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial.transform import Rotation

from model.spec import ModalitySpec
from model.types import LIVER, TUMOUR, ImageArray, MaskArray, Modality, SpacingZYX

from .config import AugmentConfig
from .sample import Quality, Sample
from .synthetic import add_tumours

Matrix = NDArray[np.float64]
_CURVE = np.array([0.0, 0.12, 0.3, 0.5, 0.7, 1.0])


@dataclass(frozen=True, eq=False)
class Draw:
    """A patch ``(z, y, x)``: image float32 in [0, 1], label uint8, and what its label means."""

    image: ImageArray
    label: MaskArray
    quality: Quality
    case: str


class Augment:
    """Random patches of one modality. A borrowed CT patch is dressed as MR."""

    def __init__(self, config: AugmentConfig, spec: ModalitySpec, modality: Modality) -> None:
        self._config, self._modality = config, modality
        self._patch, self._spacing_mm = spec.patch, spec.spacing_mm

    def __call__(self, sample: Sample, rng: Generator) -> Draw:
        centre = self._centre(sample, rng)
        image, label = self._cut(sample, centre, rng)
        grows = sample.quality != "full" and rng.random() < self._config.synthetic_tumours
        if grows and LIVER in label:
            image, label = add_tumours(image, label, sample.modality, self._spacing_mm, rng)
        return Draw(
            self._intensity(image, rng, sample.borrowed), label, sample.quality, sample.name
        )

    def _centre(self, sample: Sample, rng: Generator) -> NDArray[np.int64]:
        """A voxel of tumour or liver (each half of the time, where both are), or any."""
        shape = np.array(sample.image.shape)
        if rng.random() < self._config.foreground:
            wanted = TUMOUR if sample.has_tumour and rng.random() < 0.5 else LIVER
            voxel = sample.voxel(wanted, rng)
            if voxel is not None:
                quarter = np.array(self._patch) // 4
                moved = voxel + rng.integers(-quarter, quarter + 1)
                return np.asarray(np.clip(moved, 0, shape - 1))
        return np.asarray(rng.integers(0, shape))

    def _cut(
        self, sample: Sample, centre: NDArray[np.int64], rng: Generator
    ) -> tuple[ImageArray, MaskArray]:
        """Sample the patch around ``centre``, through a random affine where one is configured."""
        shape, patch = np.array(sample.image.shape), np.array(self._patch)
        extent = patch * np.divide(self._spacing_mm, sample.spacing_mm)  # in the sample's voxels
        start = np.clip(centre - extent // 2, 0, np.maximum(shape - extent, 0))
        matrix = self._matrix(sample.spacing_mm, rng)
        middle = start + (extent - 1) / 2
        box, offset = _support(matrix, middle, patch, shape)
        place: dict[str, Any] = {"matrix": matrix, "offset": offset, "output_shape": self._patch}
        image = sample.image[box].astype(np.float32)
        return (
            ndimage.affine_transform(image, order=1, mode="constant", **place),
            ndimage.affine_transform(sample.label[box], order=0, mode="constant", **place),
        )

    def _matrix(self, spacing_mm: SpacingZYX, rng: Generator) -> Matrix:
        """Patch voxel offsets to sample voxel offsets: flips, quarter turns in the slice, small
        rotations and anisotropic scaling, all in mm."""
        config = self._config
        motion = turn = zoom = np.eye(3)
        for axis in config.flip_axes:
            motion = _flip(axis, rng.choice([-1.0, 1.0])) @ motion
        if config.rotate90:
            motion = _quarter_turn(int(rng.integers(4))) @ motion
        if config.rotate_degrees or config.scale:
            angles = rng.normal(0.0, config.rotate_degrees / 2, 3)
            angles[1:] /= 2  # mostly about the long axis of the body
            turn = Rotation.from_euler("zyx", angles, degrees=True).as_matrix()[::-1, ::-1]
            zoom = np.diag(np.exp(_common_and_own(config.scale, rng)))
        # One quotient per entry: exactly 1 for equal spacings, so that an identity stays one.
        return turn @ zoom @ motion * np.divide.outer(self._spacing_mm, spacing_mm).T

    def _intensity(self, image: ImageArray, rng: Generator, borrowed: bool) -> ImageArray:
        config = self._config
        body = image > 0.02
        if borrowed or (self._modality == "mr" and rng.random() < config.remap):
            image = _curve(image, rng)
        if config.contrast:
            image = image ** np.float32(np.exp(rng.uniform(-1, 1) * np.log1p(config.contrast)))
        seed = int(rng.integers(2**31))
        image = np.asarray(self._random_fields().set_random_state(seed)(image[None])[0])
        if config.shift_intensity:
            shift = rng.uniform(-1, 1) * config.shift_intensity
            stretch = 1 + rng.uniform(-1, 1) * config.shift_intensity
            image = np.where(body, image * stretch + shift, image)
        return np.asarray(np.clip(image, 0, 1), np.float32)

    def _random_fields(self) -> Compose:
        config = self._config
        steps: list[Any] = []
        if config.blur:
            sigma = (0.2, config.blur)
            steps.append(RandGaussianSmooth(sigma, sigma, sigma, prob=0.2))
        if config.noise:
            steps.append(RandGaussianNoise(prob=0.4, std=config.noise))
        if config.bias_field and self._modality == "mr":
            steps.append(RandBiasField(degree=2, coeff_range=(0.0, config.bias_field), prob=0.4))
        return Compose(steps, map_items=False)


def _common_and_own(scale: float, rng: Generator) -> Matrix:
    """Log zoom of each axis: one for all, and a little of its own."""
    return np.asarray(rng.uniform(-scale, scale) + rng.normal(0, scale / 4, 3))


def _support(
    matrix: Matrix, middle: NDArray[np.float64], patch: NDArray[np.int64], shape: NDArray[np.int64]
) -> tuple[tuple[slice, ...], Matrix]:
    """The box of the sample that the patch looks at, and the affine's offset within it."""
    half = (patch - 1) / 2
    reach = np.abs(matrix) @ half + 2
    low = np.clip(np.floor(middle - reach).astype(int), 0, shape - 1)
    high = np.clip(np.ceil(middle + reach).astype(int) + 1, low + 1, shape)
    box = tuple(slice(a, b) for a, b in zip(low.tolist(), high.tolist(), strict=True))
    return box, middle - low - matrix @ half


def _flip(axis: int, sign: float) -> Matrix:
    signs = np.ones(3)
    signs[axis] = sign
    return np.diag(signs)


def _quarter_turn(count: int) -> Matrix:
    cosine, sine = [(1, 0), (0, 1), (-1, 0), (0, -1)][count]
    return np.array([[1, 0, 0], [0, cosine, -sine], [0, sine, cosine]], dtype=np.float64)


def _curve(image: ImageArray, rng: Generator) -> ImageArray:
    """A random smooth curve that keeps 0: an unseen contrast of the same anatomy. Now and then its
    lower end is bright, as fat is in T1."""
    values = np.concatenate([[0.0], np.clip(rng.normal(_CURVE[1:], 0.3), 0.0, 1.0)])
    if rng.random() < 0.4:
        values[1:] = 1.0 - values[1:] * rng.uniform(0.5, 1.0)
    if rng.random() < 0.3:
        values[1] = rng.uniform(0.4, 1.0)
    return np.asarray(np.interp(image, _CURVE, values), np.float32)
