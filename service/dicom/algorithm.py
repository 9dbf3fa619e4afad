"""Who made a mask, and how each of the result objects names its equipment."""

from dataclasses import dataclass

MANUFACTURER = "A-QCF-Net"
MODEL_NAME = "A-QCF-Net liver segmentation"
TEST_ALGORITHM = "A-QCF-Net acceptance"
TEST = "ACCEPTANCE TEST, no patient: "


@dataclass(frozen=True)
class Algorithm:
    """Who made the mask: model id and version."""

    name: str
    version: str


def described(text: str, algorithm: Algorithm) -> str:
    """A SeriesDescription, 64 characters at most; of a phantom's result it begins by saying so."""
    return (TEST + text)[:64] if algorithm.name == TEST_ALGORITHM else text
