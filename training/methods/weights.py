"""Weights of the baselines: safetensors with the blueprint in the header; no pickles."""

import json
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_model, save_model
from torch import nn

from model.errors import ModelFolderError

from .blueprint import Blueprint

KEY = "method"


def save_tensors(path: Path, net: nn.Module, plan: Blueprint) -> None:
    """Write the weights, shared ones once. A kill while it writes leaves the previous file
    whole."""
    partial = path.with_name(path.name + ".partial")
    save_model(net, str(partial), metadata={KEY: plan.model_dump_json()})
    partial.replace(path)


def read_blueprint(path: Path, wanted: Blueprint) -> Blueprint:
    """The blueprint of a file that a run of ``wanted`` may use.

    Raises ``ModelFolderError`` when the file holds no baseline, another method, or one that was
    planned for other patches, spacings or classes. The file's own widths count.
    """
    try:
        with safe_open(path, framework="pt") as file:
            found = Blueprint.model_validate(json.loads((file.metadata() or {})[KEY]))
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        message = f"{path.name} holds no weights of {wanted.method.name!r}: {error}"
        raise ModelFolderError(message) from error
    if _bound(found) != _bound(wanted):
        message = f"{path.name} is for {_bound(found)}, the run is for {_bound(wanted)}"
        raise ModelFolderError(message)
    return found


def load_tensors(path: Path, net: nn.Module) -> None:
    """Raises ``ModelFolderError`` when the tensors do not fit ``net``."""
    try:
        load_model(net, path)
    except (OSError, SafetensorError, RuntimeError) as error:
        raise ModelFolderError(f"{path.name} does not fit its own header: {error}") from error


def _bound(plan: Blueprint) -> dict[str, object]:
    return {"name": plan.method.name, **plan.model_dump(exclude={"method"})}
