import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from model.checkpoint import CONFIG_KEY, load_network, save_checkpoint
from model.errors import ModelFolderError
from model.network import AQCFNet
from model.spec import NetworkConfig

CONFIG = NetworkConfig(widths=(1, 2, 2, 2, 4), bottleneck=4, attention_gates=False, norm_eps=1e-2)


@pytest.fixture
def net() -> AQCFNet:
    torch.manual_seed(0)
    return AQCFNet(CONFIG)


@pytest.fixture
def saved(net: AQCFNet, tmp_path: Path) -> Path:
    save_checkpoint(tmp_path / "w.safetensors", net)
    return tmp_path / "w.safetensors"


def test_round_trip_gives_the_same_network(net: AQCFNet, saved: Path) -> None:
    loaded = load_network(saved)
    assert loaded.config == CONFIG
    assert not loaded.training
    assert loaded.state_dict().keys() == net.state_dict().keys()
    torch.testing.assert_close(loaded.state_dict(), net.state_dict(), rtol=0, atol=0)
    assert list(saved.parent.iterdir()) == [saved]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_rounded_weights_come_back_as_float32(
    net: AQCFNet, tmp_path: Path, dtype: torch.dtype
) -> None:
    save_checkpoint(tmp_path / "w.safetensors", net, dtype=dtype)
    save_checkpoint(tmp_path / "full.safetensors", net)
    loaded = load_network(tmp_path / "w.safetensors").state_dict()
    rounded = {name: tensor.to(dtype).float() for name, tensor in net.state_dict().items()}
    torch.testing.assert_close(loaded, rounded, rtol=0, atol=0)
    sizes = [(tmp_path / name).stat().st_size for name in ("w.safetensors", "full.safetensors")]
    assert sizes[0] < 0.8 * sizes[1]


def test_saving_over_a_checkpoint_replaces_it(net: AQCFNet, saved: Path) -> None:
    with torch.no_grad():
        next(net.parameters()).fill_(3)
    save_checkpoint(saved, net)
    assert (next(load_network(saved).parameters()) == 3).all()


@pytest.mark.parametrize("damage", ["missing", "empty", "text", "truncated", "pickle"])
def test_refuses_what_is_no_checkpoint(saved: Path, damage: str) -> None:
    whole = saved.read_bytes()
    saved.unlink()
    if damage == "pickle":
        torch.save({"weights": torch.ones(3)}, saved)
    elif damage != "missing":
        contents = {"empty": b"", "text": b"not weights", "truncated": whole[: len(whole) // 2]}
        saved.write_bytes(contents[damage])
    with pytest.raises(ModelFolderError, match=r"^w\.safetensors is not a checkpoint"):
        load_network(saved)


@pytest.mark.parametrize(
    "metadata",
    [
        None,
        {CONFIG_KEY: "{"},
        {CONFIG_KEY: json.dumps({"widths": [1, 2]})},
        {CONFIG_KEY: json.dumps({"depth": 4})},
        {CONFIG_KEY: NetworkConfig(widths=(1, 2, 2, 2, 8), bottleneck=4).model_dump_json()},
        {CONFIG_KEY: CONFIG.model_copy(update={"quaternion": False}).model_dump_json()},
        {CONFIG_KEY: CONFIG.model_copy(update={"attention_gates": True}).model_dump_json()},
    ],
)
def test_refuses_weights_that_do_not_fit_their_configuration(
    saved: Path, metadata: dict[str, str] | None
) -> None:
    with safe_open(saved, framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    save_file(tensors, saved, metadata=metadata)
    with pytest.raises(ModelFolderError):
        load_network(saved)
