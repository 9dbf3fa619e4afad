"""Files that are not the weights asked for."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from model.errors import ModelFolderError
from model.network import AQCFNet
from training.config import TrainConfig
from training.methods import build_method, load_method, save_weights
from training.methods.blueprint import blueprint

Baseline = Callable[[str], TrainConfig]


@pytest.fixture(scope="module")
def weights(baseline: Baseline, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of ``dynunet``. Read only."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "best.safetensors"
    save_weights(path, build_method(baseline("dynunet")))
    return path


@pytest.fixture(scope="module")
def proposed(make_config: Callable[..., TrainConfig]) -> TrainConfig:
    return make_config()


@pytest.mark.parametrize("name", ["attention_unet", "unpaired_kd"])
def test_another_method_is_named(weights: Path, baseline: Baseline, name: str) -> None:
    with pytest.raises(ModelFolderError, match=rf"'dynunet'.*'{name}'"):
        load_method(weights, baseline(name))


def test_a_baseline_and_the_proposed_network_refuse_each_other(
    weights: Path, baseline: Baseline, proposed: TrainConfig, tmp_path: Path
) -> None:
    path = tmp_path / "best.safetensors"
    torch.manual_seed(0)
    save_weights(path, build_method(proposed))
    with pytest.raises(ModelFolderError, match="no weights of 'dynunet'"):
        load_method(path, baseline("dynunet"))
    with pytest.raises(ModelFolderError, match="not a checkpoint of this network"):
        load_method(weights, proposed)


def test_the_proposed_network_comes_back(proposed: TrainConfig, tmp_path: Path) -> None:
    path = tmp_path / "best.safetensors"
    torch.manual_seed(0)
    net = build_method(proposed)
    save_weights(path, net)
    back = load_method(path, proposed)
    assert isinstance(back, AQCFNet)
    for mine, theirs in zip(net.parameters(), back.parameters(), strict=True):
        assert torch.equal(mine, theirs)


def test_another_patch_is_named(weights: Path, baseline: Baseline) -> None:
    config = baseline("dynunet")
    spec = config.modalities["ct"].model_copy(update={"patch": (16, 48, 48)})
    other = config.model_copy(update={"modalities": {**config.modalities, "ct": spec}})
    with pytest.raises(ModelFolderError, match=r"\(16, 16, 32\).*\(16, 48, 48\)"):
        load_method(weights, other)


def test_the_files_own_widths_count(weights: Path, baseline: Baseline) -> None:
    config = baseline("dynunet")
    wider = config.method.model_copy(update={"channels": (8, 8, 8)})
    back = load_method(weights, config.model_copy(update={"method": wider}))
    assert len(load_file(weights)) == len(back.state_dict())


def test_missing_tensors(weights: Path, baseline: Baseline, tmp_path: Path) -> None:
    config = baseline("dynunet")
    tensors = load_file(weights)
    del tensors[min(tensors)]
    path = tmp_path / "less.safetensors"
    save_file(tensors, path, metadata={"method": blueprint(config).model_dump_json()})
    with pytest.raises(ModelFolderError, match=r"does not fit[\s\S]*Missing"):
        load_method(path, config)


@pytest.mark.parametrize("content", [None, b"", b"not safetensors"])
def test_no_such_file(content: bytes | None, baseline: Baseline, tmp_path: Path) -> None:
    path = tmp_path / "best.safetensors"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ModelFolderError, match=r"best\.safetensors"):
        load_method(path, baseline("unetr"))


def test_only_methods_are_saved(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="Linear"):
        save_weights(tmp_path / "best.safetensors", nn.Linear(1, 1))
