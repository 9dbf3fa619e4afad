"""Make the default model ready before the first job asks for it."""

from collections.abc import Iterator

import numpy as np

from model.spec import ModelFolder
from model.types import Modality

from ..container import Container


def warm(container: Container) -> str:
    """Load the default model for each modality, run it once, and return the engine's name.

    Raises ``ModelUnavailableError``, ``BackendError``.
    """
    folder = container.models.default()
    return ", ".join(dict.fromkeys(_run_each(container, folder)))[:64]


def _run_each(container: Container, folder: ModelFolder) -> Iterator[str]:
    precision = folder.spec.profiles[folder.spec.default_profile].precision
    modality: Modality
    for modality, view in folder.spec.modalities.items():
        backend = container.open_backend(folder, modality, precision)
        backend.logits(np.zeros((1, 1, *view.patch), np.float32))
        yield backend.name
