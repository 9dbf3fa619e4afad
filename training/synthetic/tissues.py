"""How bright each tissue is: HU by contrast phase, MR signal (1: fat in T1) by sequence."""

import numpy as np
from numpy.random import Generator

from model.types import Modality

Palette = dict[str, float]
SEQUENCES: dict[Modality, tuple[str, ...]] = {
    "ct": ("noncontrast", "arterial", "portal"),
    "mr": ("t1_in", "t1_out", "t2_spir", "t1_contrast"),
}
_VALUES: dict[str, dict[Modality, tuple[float, ...]]] = {
    "air": {"ct": (-1000, -1000, -1000), "mr": (0, 0, 0, 0)},
    "lung": {"ct": (-830, -830, -830), "mr": (0.04, 0.04, 0.04, 0.05)},
    "fat": {"ct": (-100, -100, -100), "mr": (0.9, 0.8, 0.09, 0.16)},
    "muscle": {"ct": (52, 56, 60), "mr": (0.36, 0.34, 0.13, 0.32)},
    "liver": {"ct": (58, 68, 108), "mr": (0.5, 0.44, 0.24, 0.58)},
    "spleen": {"ct": (46, 120, 118), "mr": (0.32, 0.32, 0.5, 0.66)},
    "cortex": {"ct": (32, 190, 175), "mr": (0.4, 0.4, 0.65, 0.95)},
    "medulla": {"ct": (32, 75, 150), "mr": (0.3, 0.3, 0.8, 0.85)},
    "artery": {"ct": (42, 320, 145), "mr": (0.15, 0.15, 0.06, 0.9)},
    "vein": {"ct": (42, 70, 135), "mr": (0.18, 0.18, 0.12, 0.85)},
    "portal": {"ct": (42, 110, 160), "mr": (0.2, 0.2, 0.42, 0.9)},
    "bile": {"ct": (8, 8, 8), "mr": (0.22, 0.22, 0.95, 0.12)},
    "fluid": {"ct": (12, 12, 12), "mr": (0.15, 0.15, 0.85, 0.12)},
    "gas": {"ct": (-930, -930, -930), "mr": (0, 0, 0, 0)},
    "marrow": {"ct": (170, 180, 180), "mr": (0.55, 0.35, 0.14, 0.22)},
    "bone": {"ct": (600, 600, 600), "mr": (0.06, 0.05, 0.04, 0.06)},
    "csf": {"ct": (10, 10, 10), "mr": (0.12, 0.12, 0.95, 0.1)},
    "disc": {"ct": (75, 80, 80), "mr": (0.3, 0.3, 0.3, 0.25)},
    "bowel": {"ct": (35, 70, 80), "mr": (0.34, 0.34, 0.4, 0.5)},
    "heart": {"ct": (40, 200, 140), "mr": (0.3, 0.3, 0.15, 0.7)},
    "brain": {"ct": (36, 40, 42), "mr": (0.45, 0.45, 0.4, 0.4)},
}


def palette(modality: Modality, rng: Generator) -> Palette:
    """A contrast phase or sequence drawn at random, each soft tissue a little off its usual
    value: tissue name -> HU or relative signal."""
    column = int(rng.integers(len(SEQUENCES[modality])))
    usual = {name: values[modality][column] for name, values in _VALUES.items()}
    return {name: _varied(value, rng) for name, value in usual.items()}


def _varied(value: float, rng: Generator) -> float:
    factor = 1.0 + 0.07 * float(np.clip(rng.standard_normal(), -2.0, 2.0))
    return value * factor if abs(value) < 500 else value  # air and bone stay
