"""What can be told of processes without starting any; test_distributed.py starts them."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from model.errors import ConfigError
from training.config import TrainConfig
from training.ranks import collected, is_first, launch

ConfigMaker = Callable[..., TrainConfig]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"accelerator": "gpu"}, "accelerator 'gpu': torch finds no GPU here"),
        ({"devices": 4096}, r"devices 4096: this machine has \d+ CPU cores"),
        ({"precision": "16-mixed"}, "'16-mixed' needs a GPU"),
    ],
)
def test_a_machine_without_what_is_asked_for_is_told_before_anything_starts(
    make_config: ConfigMaker, changes: dict[str, Any], message: str
) -> None:
    if "accelerator" in changes and torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(ConfigError, match=message):
        launch(make_config(**changes))


@pytest.mark.parametrize("processes", [1, 2, 3])
def test_what_is_dealt_comes_back_in_its_order(processes: int) -> None:
    for count in range(7):
        items = list(range(count))
        assert collected([items[rank::processes] for rank in range(processes)]) == items


def test_a_process_alone_is_the_first() -> None:
    assert is_first()
