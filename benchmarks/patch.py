"""One patch of the `paper` network, the deployed ways side by side in one run.

    python benchmarks/patch.py [--rounds 3] [--json patch.json] [--config small]

Reference is the paper's path: both streams in eager PyTorch, the absent one all zeros.
"""

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from table import alternate, show, write_json

from model.backends import open_backend
from model.checkpoint import save_checkpoint
from model.export import write_onnx, zero_filled
from model.network import AQCFNet
from model.spec import WEIGHTS, load_model_folder, write_manifest
from model.types import Batch
from training.config import TrainConfig, load_config
from training.evaluate import draft_spec

CONFIGS = Path(__file__).parent.parent / "training" / "configs"
REFERENCE = "torch f32, two streams zero-filled"


def main() -> None:
    options = arguments()
    config = load_config(CONFIGS / f"{options.config}.yaml")
    torch.manual_seed(0)
    net = AQCFNet(config.network).half().float().eval()
    patch = config.modalities["ct"].patch
    batch = np.random.default_rng(0).random((1, 1, *patch), dtype=np.float32)
    console = Console()
    with tempfile.TemporaryDirectory() as folder, console.status("exporting") as status:
        ways = ways_to_run(net, config, Path(folder))
        logits: dict[str, Batch] = {}
        runs = {name: keeping(name, run, batch, logits) for name, run in ways.items()}
        timings = alternate(runs, options.rounds, status.update)
    base = timings[REFERENCE].median
    rows = [
        {
            "way": name,
            "median_s": timing.median,
            "seconds": timing.seconds,
            "times_faster": base / timing.median,
            "labels_equal": float((logits[name].argmax(1) == logits[REFERENCE].argmax(1)).mean()),
        }
        for name, timing in timings.items()
    ]
    title = (
        f"{config.name}: one {'x'.join(map(str, patch))} patch (z, y, x), {options.rounds} rounds"
    )
    show(
        title,
        ["way", "median s", "min-max s", "times faster", "labels equal"],
        [
            [
                row["way"], f"{row['median_s']:.2f}",
                f"{min(row['seconds']):.2f}-{max(row['seconds']):.2f}",
                f"{row['times_faster']:.1f}", f"{row['labels_equal']:.2%}",
            ]
            for row in rows
        ],
    )  # fmt: skip
    write_json(options.json, {"title": title, "rows": rows})


def ways_to_run(
    net: AQCFNet, config: TrainConfig, folder: Path
) -> dict[str, Callable[[Batch], Batch]]:
    """The network is not trained, so the labels it gives say little and no gate is asked."""
    save_checkpoint(folder / WEIGHTS, net, dtype=torch.float16)
    write_onnx(net.one_stream("ct").eval(), config.modalities["ct"].patch, folder / "ct.onnx")
    files = {name: folder / name for name in (WEIGHTS, "ct.onnx")}
    write_manifest(folder, draft_spec(config), files)
    model = load_model_folder(folder)
    ways: dict[str, Callable[[Batch], Batch]] = {REFERENCE: zero_filled(net, "ct")}
    for engine, precision in (
        ("torch", "f32"), ("onnxruntime", "f32"), ("openvino", "f32"), ("openvino", "bf16"),
    ):  # fmt: skip
        backend = open_backend(model, "ct", engine=engine, precision=precision)
        ways[f"{engine} {backend.precision}, one stream"] = backend.logits
    return ways


def keeping(
    name: str, run: Callable[[Batch], Batch], batch: Batch, into: dict[str, Batch]
) -> Callable[[], None]:
    def timed() -> None:
        into[name] = run(batch)

    return timed


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--config", default="paper", help="a name in training/configs")
    parser.add_argument("--json", type=Path, default=Path("patch.json"))
    return parser.parse_args()


if __name__ == "__main__":
    main()
