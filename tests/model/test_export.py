"""The exported graphs equal the network, or nothing is written."""

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from model import export
from model.backends import open_backend
from model.checkpoint import load_network
from model.errors import ExportParityError
from model.export import edge_inputs, export_model, write_torchscript, zero_filled
from model.network import AQCFNet
from model.spec import (
    WEIGHTS,
    FixedIntensity,
    ModalitySpec,
    ModelSpec,
    NetworkConfig,
    PostprocessRules,
    Profile,
    load_model_folder,
)
from model.types import MODALITIES, Modality

PATCH = (16, 32, 32)
TINY = NetworkConfig(widths=(2, 2, 4, 4, 4), bottleneck=4)


@pytest.fixture(scope="module")
def spec() -> ModelSpec:
    modality = ModalitySpec(
        orientation="RAS", spacing_mm=(3, 2, 2), intensity=FixedIntensity(lo=0, hi=1), patch=PATCH
    )
    return ModelSpec(
        id="tiny",
        version="1",
        network=TINY,
        modalities=dict.fromkeys(MODALITIES, modality),
        profiles={"balanced": Profile(overlap=0.5)},
        postprocess={m: PostprocessRules() for m in MODALITIES},
    )


@pytest.fixture(scope="module")
def net() -> AQCFNet:
    torch.manual_seed(3)
    return AQCFNet(TINY).eval()


@pytest.fixture(scope="module")
def folder(spec: ModelSpec, net: AQCFNet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models") / "tiny"
    export_model(net, spec, path, torchscript=True)
    return path


def test_an_exported_folder_loads_and_its_hashes_hold(folder: Path) -> None:
    model = load_model_folder(folder)
    assert set(model.spec.files) == {WEIGHTS, "ct.onnx", "mr.onnx", "ct.ts", "mr.ts"}
    assert set(model.spec.export["reached"]) == {"ct.onnx", "mr.onnx", "ct.ts", "mr.ts"}
    assert max(model.spec.export["reached"].values()) <= model.spec.export["tolerance"]


@pytest.mark.parametrize("modality", MODALITIES)
@pytest.mark.parametrize("engine", ["onnxruntime", "openvino", "torch"])
def test_zero_filled_two_stream_logits_equal_the_one_stream_graph(
    folder: Path, modality: Modality, engine: str
) -> None:
    model = load_model_folder(folder)
    backend = open_backend(model, modality, engine=engine)  # type: ignore[arg-type]
    reference = zero_filled(load_network(folder / WEIGHTS), modality)
    noise = edge_inputs(PATCH)[0]
    np.testing.assert_allclose(backend.logits(noise), reference(noise), atol=1e-4)


def test_the_batch_of_a_graph_is_dynamic_and_samples_do_not_mix(folder: Path) -> None:
    backend = open_backend(load_model_folder(folder), "ct", engine="onnxruntime")
    noise = edge_inputs(PATCH)[0]
    apart = np.concatenate([backend.logits(noise[:1]), backend.logits(noise[1:])])
    np.testing.assert_allclose(backend.logits(noise), apart, atol=1e-5)


def test_a_graph_holds_sub_kernels_not_assembled_kernels(folder: Path) -> None:
    graph = onnx.load(folder / "ct.onnx")
    held = sum(int(np.prod(tensor.dims)) for tensor in graph.graph.initializer)
    stream = load_network(folder / WEIGHTS).one_stream("ct")
    assert held < 1.2 * sum(p.numel() for p in stream.parameters())


def test_weights_are_rounded_before_the_graphs_are_made(folder: Path, net: AQCFNet) -> None:
    rounded = load_network(folder / WEIGHTS).state_dict()
    for name, tensor in net.state_dict().items():
        assert torch.equal(rounded[name], tensor.half().float()), name


def test_a_graph_that_differs_is_refused_and_the_old_folder_stays(
    folder: Path, spec: ModelSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {file.name: file.read_bytes() for file in folder.iterdir()}
    torch.manual_seed(9)
    other = AQCFNet(TINY).eval()
    monkeypatch.setattr(export, "zero_filled", lambda _net, modality: zero_filled(other, modality))
    with pytest.raises(ExportParityError, match=r"ct\.onnx differs"):
        export_model(AQCFNet(TINY).eval(), spec, folder)
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == before


def test_real_patches_are_part_of_the_gate(
    spec: ModelSpec, net: AQCFNet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[int, ...]] = []
    whole = export._parity

    def spy(graph, run, reference, modality, inputs):  # type: ignore[no-untyped-def]
        seen.append(tuple(len(batch) for batch in inputs))
        return whole(graph, run, reference, modality, inputs)

    monkeypatch.setattr(export, "_parity", spy)
    real = {"ct": [np.random.default_rng(0).random((3, 1, *PATCH), dtype=np.float32)]}
    export_model(net, spec, tmp_path / "model", real=real)  # type: ignore[arg-type]
    assert seen[0][-1] == 3
    assert len(seen[0]) == len(seen[1]) + 1


def test_torchscript_runs_without_the_python_classes(net: AQCFNet, tmp_path: Path) -> None:
    run = write_torchscript(net.one_stream("mr").eval(), PATCH, tmp_path / "mr.ts")
    noise = edge_inputs(PATCH)[0]
    np.testing.assert_allclose(run(noise), zero_filled(net, "mr")(noise), atol=1e-4)
