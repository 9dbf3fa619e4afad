"""Checkpoints: safetensors with the network's configuration in the header; no pickles."""

import json
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from .errors import ModelFolderError
from .network import AQCFNet
from .spec import NetworkConfig

CONFIG_KEY = "network"


def save_checkpoint(path: Path, net: AQCFNet, *, dtype: torch.dtype = torch.float32) -> None:
    """Write the weights, rounded to ``dtype``, and the configuration that rebuilds the network.

    A kill while it writes leaves the previous file whole.
    """
    state = net.state_dict()
    tensors = {name: t.detach().to("cpu", dtype).contiguous() for name, t in state.items()}
    partial = path.with_name(path.name + ".partial")
    save_file(tensors, partial, metadata={CONFIG_KEY: net.config.model_dump_json()})
    partial.replace(path)


def load_network(path: Path) -> AQCFNet:
    """Rebuild the network of a checkpoint, in float32 and evaluation mode.

    Raises ``ModelFolderError`` when the file is no such checkpoint or does not fit its own
    configuration.
    """
    try:
        with safe_open(path, framework="pt") as file:
            config = NetworkConfig.model_validate(json.loads((file.metadata() or {})[CONFIG_KEY]))
            tensors = {name: file.get_tensor(name).float() for name in file.keys()}  # noqa: SIM118
        net = AQCFNet(config)
        net.load_state_dict(tensors)
    except (OSError, SafetensorError, KeyError, ValueError, RuntimeError) as error:
        message = f"{path.name} is not a checkpoint of this network: {error}"
        raise ModelFolderError(message) from error
    return net.eval()
