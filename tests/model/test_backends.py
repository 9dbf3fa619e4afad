import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from model.backends import available_engines, open_backend
from model.backends.base import engine_errors
from model.checkpoint import save_checkpoint
from model.errors import BackendBrokenError, BackendError, OutOfMemoryError
from model.network import AQCFNet
from model.spec import (
    FixedIntensity,
    ModalitySpec,
    ModelFolder,
    ModelSpec,
    NetworkConfig,
    load_model_folder,
    write_manifest,
)

PATCH = (16, 16, 32)


def tiny_graph() -> onnx.ModelProto:
    """One 3x3x3 convolution from 1 to 3 channels with a bias: weights of a fixed seed."""
    rng = np.random.default_rng(0)
    weight = numpy_helper.from_array(rng.normal(size=(3, 1, 3, 3, 3)).astype(np.float32), "w")
    bias = numpy_helper.from_array(np.array([0.5, -0.25, 0.125], np.float32), "b")
    node = helper.make_node("Conv", ["image", "w", "b"], ["logits"], pads=[1] * 6)
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", 1, *PATCH])
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", 3, *PATCH])
    graph = helper.make_graph([node], "tiny", [image], [logits], [weight, bias])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> ModelFolder:
    path = tmp_path_factory.mktemp("tiny")
    onnx.save(tiny_graph(), path / "ct.onnx")
    torch.manual_seed(0)
    config = NetworkConfig(widths=(1, 1, 1, 1, 1), bottleneck=1)
    save_checkpoint(path / "weights.safetensors", AQCFNet(config))
    view = ModalitySpec(
        orientation="RAS",
        spacing_mm=(2, 2, 2),
        intensity=FixedIntensity(lo=0, hi=1),
        patch=PATCH,
    )
    spec = ModelSpec.model_validate(
        {
            "id": "tiny", "version": "1", "network": config, "modalities": {"ct": view},
            "profiles": {"balanced": {"overlap": 0.5}}, "postprocess": {},
        }
    )  # fmt: skip
    files = {name: path / name for name in ("ct.onnx", "weights.safetensors")}
    write_manifest(path, spec, files)
    return load_model_folder(path)


@pytest.fixture
def batch() -> np.ndarray:
    return np.random.default_rng(1).random((3, 1, *PATCH), np.float32)


def reference(batch: np.ndarray) -> np.ndarray:
    weight, bias = (numpy_helper.to_array(t) for t in tiny_graph().graph.initializer)
    padded = np.pad(batch[:, 0], [(0, 0), (1, 1), (1, 1), (1, 1)])
    blocks = np.lib.stride_tricks.sliding_window_view(padded, (3, 3, 3), axis=(1, 2, 3))
    return np.einsum("nzyxabc,kabc->nkzyx", blocks, weight[:, 0]) + bias[:, None, None, None]


@pytest.mark.parametrize("engine", ["openvino", "onnxruntime", "auto"])
@pytest.mark.parametrize("threads", [None, 1])
def test_engines_agree(folder: ModelFolder, batch: np.ndarray, engine, threads) -> None:
    backend = open_backend(folder, "ct", engine, threads=threads)
    logits = backend.logits(batch)
    assert logits.dtype == np.float32
    assert backend.precision == "f32"
    np.testing.assert_allclose(logits, reference(batch), atol=1e-4)
    assert engine == "auto" or backend.name.startswith(f"{engine}-")


@pytest.mark.parametrize("engine", ["openvino", "onnxruntime"])
def test_answers_do_not_share_memory(folder: ModelFolder, batch: np.ndarray, engine) -> None:
    backend = open_backend(folder, "ct", engine)
    first = backend.logits(batch[:1])
    kept = first.copy()
    backend.logits(batch[1:2])
    np.testing.assert_array_equal(first, kept)


def test_bf16_is_close_or_said_to_be_missing(folder: ModelFolder, batch: np.ndarray) -> None:
    able = {info.engine: info for info in available_engines()}["openvino"].precisions
    backend = open_backend(folder, "ct", "openvino", "bf16")
    assert backend.precision == ("bf16" if "bf16" in able else "f32")
    assert backend.name == f"openvino-cpu-{backend.precision}"
    np.testing.assert_allclose(backend.logits(batch), reference(batch), atol=0.1)
    assert open_backend(folder, "ct", "onnxruntime", "bf16").precision == "f32"


def test_torch_runs_the_checkpoint(folder: ModelFolder, batch: np.ndarray) -> None:
    backend = open_backend(folder, "ct", "torch")
    assert backend.name.startswith("torch-")
    logits = backend.logits(batch)
    assert logits.shape == (3, 3, *PATCH)
    again = np.concatenate([backend.logits(batch[i : i + 1]) for i in range(3)])
    np.testing.assert_allclose(logits, again, atol=1e-4)


@pytest.mark.parametrize("engine", ["openvino", "onnxruntime", "torch"])
@pytest.mark.parametrize("shape", [(1, 1, 16, 16, 16), (1, 2, *PATCH), PATCH])
def test_wrong_shapes_are_refused(folder: ModelFolder, engine, shape: tuple[int, ...]) -> None:
    backend = open_backend(folder, "ct", engine)
    with pytest.raises(BackendError, match=r"takes \(n, 1, 16, 16, 32\)"):
        backend.logits(np.zeros(shape, np.float32))


def test_what_cannot_be_opened(folder: ModelFolder) -> None:
    with pytest.raises(BackendError, match="no MR part"):
        open_backend(folder, "mr")
    with pytest.raises(BackendError, match="no engine is called 'tpu'"):
        open_backend(folder, "ct", "tpu")
    devices = {info.engine: info.devices for info in available_engines()}["onnxruntime"]
    if "tensorrt" not in devices:
        with pytest.raises(BackendError, match="TensorRT is not installed"):
            open_backend(folder, "ct", "tensorrt")


@pytest.mark.parametrize("engine", ["openvino", "onnxruntime"])
def test_a_broken_graph_is_a_typed_error(folder: ModelFolder, tmp_path: Path, engine) -> None:
    (tmp_path / "ct.onnx").write_bytes(b"no graph")
    broken = ModelFolder(tmp_path, folder.spec, folder.sha256)
    with pytest.raises(BackendError, match=r"ct\.onnx"):
        open_backend(broken, "ct", engine)


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (MemoryError(), OutOfMemoryError),
        (RuntimeError("std::bad_alloc"), OutOfMemoryError),
        (RuntimeError("CUDA out of memory"), OutOfMemoryError),
        (
            RuntimeError(
                "[ONNXRuntimeError] : 6 : RUNTIME_EXCEPTION : Non-zero status code returned while "
                "running Conv node. Name:'/enc/Conv' Status Message: bfc_arena.cc:376 void* "
                "onnxruntime::BFCArena::AllocateRawInternal(size_t, bool) Failed to allocate "
                "memory for requested buffer of size 4585490524"
            ),
            OutOfMemoryError,
        ),
        (
            RuntimeError("Available memory of 1048576 is smaller than requested bytes of 2097152"),
            OutOfMemoryError,
        ),
        (RuntimeError("CUDNN failure 4: CUDNN_STATUS_ALLOC_FAILED ; GPU=0"), OutOfMemoryError),
        (RuntimeError("CUBLAS failure 3: CUBLAS_STATUS_ALLOC_FAILED ; GPU=0"), OutOfMemoryError),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), OutOfMemoryError),
        (RuntimeError("[GPU] Exceeded max size of memory allocation"), OutOfMemoryError),
        (
            RuntimeError(
                "CUDA failure 700: an illegal memory access was encountered ; GPU=0 ; "
                "hostname=c0ffee ; file=gpu_data_transfer.cc ; line=63 ; expr=cudaMemcpyAsync()"
            ),
            BackendBrokenError,
        ),
        (RuntimeError("CUDA failure 719: unspecified launch failure ; GPU=0"), BackendBrokenError),
        (RuntimeError("CUDA error: device-side assert triggered"), BackendBrokenError),
        (RuntimeError("CUDNN failure 5: CUDNN_STATUS_EXECUTION_FAILED"), BackendBrokenError),
        (RuntimeError("CUDA error: uncorrectable ECC error encountered"), BackendBrokenError),
        (RuntimeError("CUDA failure 1: invalid argument ; GPU=0"), BackendError),
        (RuntimeError("CUDNN_STATUS_NOT_SUPPORTED"), BackendError),
        (RuntimeError("shape mismatch"), BackendError),
    ],
)
def test_engine_errors_become_ours(error: Exception, kind: type[BackendError]) -> None:
    with pytest.raises(BackendError) as caught, engine_errors("x", "running"):
        raise error
    assert type(caught.value) is kind


def test_the_machine_describes_itself() -> None:
    infos = {info.engine: info for info in available_engines()}
    assert set(infos) == {"openvino", "onnxruntime", "torch"}
    assert infos["openvino"].available
    assert "cpu" in infos["onnxruntime"].devices


def test_serving_never_imports_torch(folder: ModelFolder) -> None:
    code = (
        "import sys; from pathlib import Path; from model.spec import load_model_folder;"
        "from model.backends import available_engines, open_backend; import model.pipeline;"
        f"open_backend(load_model_folder(Path({str(folder.path)!r})), 'ct');"
        "available_engines(); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
