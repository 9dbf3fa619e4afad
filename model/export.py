"""From a network to a model folder: ONNX and TorchScript graphs, refused unless they equal it.

The graphs are the one-stream networks. They hold the four sub-kernels of each quaternion layer and
assemble the real kernel (eq. 2) from constants, which engines fold when they load: a quarter of the
folded size.
"""

import os
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from torch import nn

from .backends.base import INPUT, OUTPUT
from .checkpoint import load_network, save_checkpoint
from .errors import ExportParityError
from .network import AQCFNet
from .spec import WEIGHTS, ModelSpec, write_manifest
from .types import MODALITIES, Batch, Modality, ShapeZYX

TOLERANCE = 1e-3  # largest difference of logits, relative to the largest logit
OPSET = 17

Run = Callable[[Batch], Batch]


def export_model(
    net: AQCFNet,
    spec: ModelSpec,
    folder: Path,
    *,
    real: Mapping[Modality, Sequence[Batch]] | None = None,
    torchscript: bool = False,
    dtype: torch.dtype = torch.float16,
) -> ModelSpec:
    """Write ``folder``: weights rounded to ``dtype``, ``ct.onnx``, ``mr.onnx``, the manifest.

    Every graph is compared with the zero-filled two-stream network, holding the very weights that
    are written, on random and edge inputs and on ``real`` patches ``(n, 1, z, y, x)``; the reached
    figures go into ``spec.export``. Raises ``ExportParityError`` beyond ``TOLERANCE``; then
    ``folder`` is as it was.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as name:
        draft = Path(name)
        save_checkpoint(draft / WEIGHTS, net, dtype=dtype)
        rounded = load_network(draft / WEIGHTS)
        reached: dict[str, float] = {}
        for modality in MODALITIES:
            patch = spec.modalities[modality].patch
            inputs = [*edge_inputs(patch), *(real or {}).get(modality, ())]
            for graph, run in _graphs(rounded, modality, patch, draft, torchscript):
                reached[graph] = _parity(graph, run, rounded, modality, inputs)
        record = {"tolerance": TOLERANCE, "reached": reached, "weights": str(dtype)[6:]}
        files = {file.name: file for file in sorted(draft.iterdir())}
        written = write_manifest(draft, spec.model_copy(update={"export": record}), files)
        _replace(draft, folder)
    return written


def edge_inputs(patch: ShapeZYX, seed: int = 0) -> list[Batch]:
    """Random, empty, half-empty, nearly empty and black-and-white patches ``(n, 1, z, y, x)``.

    A constant patch other than empty is not among them: an instance norm divides it by next to
    nothing, so that engines differ by the rounding of a mean; preprocessing never makes one.
    """
    rng = np.random.default_rng(seed)
    noise = rng.random((2, 1, *patch), dtype=np.float32)
    half = noise[:1].copy()
    half[..., patch[2] // 2 :] = 0
    point = np.zeros((1, 1, *patch), np.float32)
    point[..., patch[0] // 2, patch[1] // 2, patch[2] // 2] = 1
    blocks = np.kron(rng.integers(0, 2, [side // 8 for side in patch]), np.ones((8, 8, 8)))
    return [noise, np.zeros_like(point), half, point, blocks[None, None].astype(np.float32)]


def zero_filled(net: AQCFNet, modality: Modality) -> Run:
    """The paper's deployed path (eq. 17): both streams, the absent one all zeros."""

    def run(batch: Batch) -> Batch:
        image = torch.from_numpy(batch)
        absent = torch.zeros_like(image)
        pair = (image, absent) if modality == "ct" else (absent, image)
        with torch.inference_mode():
            return np.asarray(net(*pair)[MODALITIES.index(modality)].numpy(), np.float32)

    return run


def write_onnx(stream: nn.Module, patch: ShapeZYX, path: Path) -> Run:
    """Write the graph, batch dynamic; returns a runner on ONNX Runtime."""
    with warnings.catch_warnings():
        # The newer exporter writes convolutions without bias that ONNX Runtime rejects.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            stream,
            (torch.zeros(1, 1, *patch),),
            path,
            input_names=[INPUT],
            output_names=[OUTPUT],
            dynamic_axes={INPUT: {0: "n"}, OUTPUT: {0: "n"}},
            opset_version=OPSET,
            do_constant_folding=False,
            dynamo=False,
        )
    _halve(path)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return lambda batch: np.asarray(session.run([OUTPUT], {INPUT: batch})[0], np.float32)


def _halve(path: Path) -> None:
    """Store in half precision what loses nothing by it: the weights were rounded to it before."""
    graph = onnx.load(path)
    casts = []
    for tensor in graph.graph.initializer:
        values = onnx.numpy_helper.to_array(tensor)
        half = values.astype(np.float16)
        if values.dtype == np.float32 and values.size >= 64 and np.array_equal(half, values):
            name = tensor.name
            tensor.CopyFrom(onnx.numpy_helper.from_array(half, f"{name}.half"))
            casts.append(onnx.helper.make_node("Cast", [f"{name}.half"], [name], to=1))
    nodes = [*casts, *graph.graph.node]
    del graph.graph.node[:]
    graph.graph.node.extend(nodes)
    onnx.save(graph, path)


def write_torchscript(stream: nn.Module, patch: ShapeZYX, path: Path) -> Run:
    """Write the traced graph; returns a runner on what was read back."""
    with warnings.catch_warnings(), torch.inference_mode():
        warnings.simplefilter("ignore")
        torch.jit.trace(stream, torch.rand(1, 1, *patch)).save(str(path))
        script = torch.jit.load(str(path))

    def run(batch: Batch) -> Batch:
        with torch.inference_mode():
            return np.asarray(script(torch.from_numpy(batch)).numpy(), np.float32)

    return run


def _graphs(
    net: AQCFNet, modality: Modality, patch: ShapeZYX, folder: Path, torchscript: bool
) -> Iterator[tuple[str, Run]]:
    stream = net.one_stream(modality).eval()
    name = f"{modality}.onnx"
    yield name, write_onnx(stream, patch, folder / name)
    if torchscript:
        name = f"{modality}.ts"
        yield name, write_torchscript(stream, patch, folder / name)


def _parity(
    graph: str, run: Run, net: AQCFNet, modality: Modality, inputs: Sequence[Batch]
) -> float:
    """The largest relative difference over all inputs; raises when it is beyond the tolerance."""
    reference = zero_filled(net, modality)
    worst = 0.0
    for number, batch in enumerate(inputs):
        expected, found = reference(batch), run(batch)
        difference = float(np.abs(found - expected).max() / np.abs(expected).max())
        if not difference <= TOLERANCE:
            raise ExportParityError(
                f"{graph} differs from the network by {difference:.2e} of the largest logit on "
                f"input {number} (tolerance {TOLERANCE:.0e}); nothing was written"
            )
        worst = max(worst, difference)
    return float(f"{worst:.2e}")


def _replace(draft: Path, folder: Path) -> None:
    """Move the files of ``draft`` into ``folder``, the manifest last, so that what is there is at
    no moment a valid manifest beside other weights."""
    folder.mkdir(exist_ok=True)
    (folder / "manifest.json").unlink(missing_ok=True)
    for stale in (*folder.glob("*.onnx"), *folder.glob("*.ts")):
        stale.unlink()
    for file in sorted(draft.iterdir(), key=lambda f: f.name == "manifest.json"):
        if not os.path.lexists(folder / file.name) or file.is_file():
            shutil.move(file, folder / file.name)
