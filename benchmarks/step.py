"""What a training step of a configuration needs: memory of a GPU, estimated on the CPU, and work.

    python benchmarks/step.py [--config paper] [--sides 64 96] [--json step.json]

Counts what autograd keeps for the backward pass (each storage once) at reduced patches: it grows
with the voxels, so two sizes give the line to the whole patch. Weights, their gradients and AdamW's
moments are counted; cuDNN's workspaces and the allocator's slack are not. Where a GPU is, the step
is run there too, and its peak and its seconds are measured. The work is the multiplications and
additions of convolutions and matrices, forward and backward, of the whole patch.
"""

import argparse
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from table import show, write_json
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.flop_counter import FlopCounterMode

from model.types import MODALITIES, ShapeZYX
from training.config import TrainConfig, load_config
from training.losses import case_loss
from training.methods import build_method

CONFIGS = Path(__file__).parent.parent / "training" / "configs"
GB = 1e9


def main() -> None:
    options = arguments()
    config = load_config(CONFIGS / f"{options.config}.yaml")
    whole = config.modalities["ct"].patch
    rows = []
    with Console().status("measuring") as status:
        for low in (False, True):
            for again in (False, True):
                status.update(f"bf16 {low}, recomputed {again}")
                rows.append(row(config, whole, options.sides, low=low, again=again))
    title = f"{config.name}: one step, batch 1+1, patch {'x'.join(map(str, whole))} (z, y, x), GB"
    columns = list(rows[0])
    show(title, columns, [[str(entry[name]) for name in columns] for entry in rows])
    write_json(options.json, {"title": title, "rows": rows})


def row(
    config: TrainConfig, whole: ShapeZYX, sides: list[int], *, low: bool, again: bool
) -> dict[str, Any]:
    patches = [(whole[0], side, side) for side in sides]
    kept = [saved_bytes(config, patch, low=low, again=again) / GB for patch in patches]
    voxels = [z * y * x for z, y, x in patches]
    slope = (kept[-1] - kept[0]) / (voxels[-1] - voxels[0])
    activations = kept[-1] + slope * (whole[0] * whole[1] * whole[2] - voxels[-1])
    weights = state_bytes(config) / GB
    return {
        "precision": "bf16" if low else "f32",
        "recomputed": again,
        **{f"kept at {side}": round(value, 3) for side, value in zip(sides, kept, strict=True)},
        "kept, whole patch": round(activations, 2),
        "weights, gradients, AdamW": round(weights, 2),
        "sum": round(activations + weights, 2),
        "TFLOP": round(operations(config, whole, again=again) / 1e12, 2),
        **measured(config, whole, low=low, again=again),
    }


def saved_bytes(config: TrainConfig, patch: ShapeZYX, *, low: bool, again: bool) -> int:
    """Of one CT and one MR patch; parameters, which are there anyway, are not counted."""
    net = network(config, again=again)
    known = {p.untyped_storage().data_ptr() for p in net.parameters()}
    kept: dict[int, tuple[Tensor, int]] = {}  # the tensors stay alive, or an address comes twice

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in known:
            kept[storage.data_ptr()] = (tensor.detach(), storage.nbytes())
        return tensor

    with saved_tensors_hooks(pack, lambda tensor: tensor):
        loss_of(net, patch, low=low)
    return sum(size for _, size in kept.values())


def state_bytes(config: TrainConfig) -> int:
    """Weights, gradients, two moments, in float32; the averaged weights where they are kept."""
    count = sum(p.numel() for p in network(config, again=False).parameters())
    return count * 4 * (5 if config.optimiser.ema else 4)


def operations(config: TrainConfig, patch: ShapeZYX, *, again: bool) -> int:
    """Counted on tensors without values."""
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        loss_of(network(config, again=again), patch, low=False).backward()
    return int(counter.get_total_flops())


def measured(
    config: TrainConfig, patch: ShapeZYX, *, low: bool, again: bool, steps: int = 5
) -> dict[str, Any]:
    """The peak in GB and the seconds of a whole step on a GPU, the first ones left out."""
    if not torch.cuda.is_available():
        return {"GPU peak": None, "GPU seconds": None}
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    net = network(config, again=again).cuda()
    optimiser = torch.optim.AdamW(net.parameters())
    for step in range(2 * steps):
        if step == steps:
            torch.cuda.synchronize()
            begin = time.perf_counter()
        optimiser.zero_grad()
        loss_of(net, patch, low=low).backward()
        optimiser.step()
    torch.cuda.synchronize()
    seconds = (time.perf_counter() - begin) / steps
    peak = torch.cuda.max_memory_allocated() / GB
    return {"GPU peak": round(peak, 2), "GPU seconds": round(seconds, 3)}


def network(config: TrainConfig, *, again: bool) -> Any:
    torch.manual_seed(0)
    net: Any = build_method(config)
    net.recompute = again
    return net


def loss_of(net: Any, patch: ShapeZYX, *, low: bool) -> Tensor:
    device = next(net.parameters()).device
    images = [torch.rand(1, 1, *patch, device=device) for _ in MODALITIES]
    label = torch.randint(0, 3, (1, *patch), device=device)
    half = torch.autocast(device.type, torch.bfloat16) if low else nullcontext()
    with half:
        logits = net(*images)
    losses = [case_loss(x.float(), label, ["full"], 1.0).value for x in logits]
    return losses[0] + losses[1]


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--config", default="paper", help="a name in training/configs")
    parser.add_argument("--sides", type=int, nargs=2, default=[64, 96], help="y and x, measured")
    parser.add_argument("--json", type=Path, default=Path("step.json"))
    return parser.parse_args()


if __name__ == "__main__":
    main()
