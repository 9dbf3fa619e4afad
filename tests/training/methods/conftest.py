"""A tiny configuration of each baseline."""

from collections.abc import Callable
from typing import Any

import pytest

from training.config import TrainConfig

SETTINGS: dict[str, dict[str, Any]] = {
    "dynunet": {"channels": (4, 6, 8)},
    "attention_unet": {"channels": (4, 6, 8)},
    "unetr": {"channels": (4,), "hidden": 24, "heads": 2},
    "swin_unetr": {"channels": (12,)},
    "unpaired_kd": {"channels": (4, 6, 8)},
}
ConfigMaker = Callable[..., TrainConfig]


@pytest.fixture(scope="session")
def baseline(make_config: ConfigMaker) -> Callable[[str], TrainConfig]:
    def make(name: str) -> TrainConfig:
        return make_config(method={"name": name, **SETTINGS[name]})

    return make
