"""Who made a mask, and how each of the result objects names its equipment."""

from dataclasses import dataclass

MANUFACTURER = "A-QCF-Net"
MODEL_NAME = "A-QCF-Net liver segmentation"


@dataclass(frozen=True)
class Algorithm:
    """Who made the mask: model id and version."""

    name: str
    version: str
