"""A tiny model, tiny images and whole containers, all made here."""

import uuid
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from object_store import S3Server
from onnx import TensorProto, helper
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, MRImageStorage
from servers import OrthancServer, PostgresServer, RedisServer

from model.nifti import write_nifti
from model.spec import (
    FixedIntensity,
    ModalitySpec,
    ModelSpec,
    NetworkConfig,
    PostprocessRules,
    Profile,
    write_manifest,
)
from service import wiring
from service.container import Container
from service.settings import Settings

PATCH = (16, 32, 32)
LIVER_VALUE, TUMOUR_VALUE = 120, 180
SIZE_MM = 2.0


def threshold_graph(path: Path) -> None:
    """Logits that say liver above 0.5 and tumour above 0.8 of the intensity range."""
    weight = np.array([0, 20, 60], np.float32).reshape(3, 1, 1, 1, 1)
    bias = np.array([0, -10, -42], np.float32)
    node = helper.make_node("Conv", ["image", "weight", "bias"], ["logits"], kernel_shape=[1, 1, 1])
    graph = helper.make_graph(
        [node],
        "threshold",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", 1, *PATCH])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", 3, *PATCH])],
        [
            helper.make_tensor("weight", TensorProto.FLOAT, weight.shape, weight.ravel()),
            helper.make_tensor("bias", TensorProto.FLOAT, bias.shape, bias),
        ],
    )
    opset = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=8), path)


def make_model(folder: Path, model_id: str = "tiny", overlap: float = 0.25) -> Path:
    """A model folder whose masks follow from the intensities."""
    folder.mkdir(parents=True)
    for name in ("ct.onnx", "mr.onnx"):
        threshold_graph(folder / name)
    view = ModalitySpec(
        orientation="RAS",
        spacing_mm=(SIZE_MM, SIZE_MM, SIZE_MM),
        intensity=FixedIntensity(lo=0, hi=200),
        patch=PATCH,
    )
    rules = PostprocessRules(min_liver_ml=5.0)
    spec = ModelSpec(
        id=model_id,
        version="1",
        network=NetworkConfig(widths=(1, 1, 1, 1, 1), bottleneck=1),
        modalities={"ct": view, "mr": view},
        profiles={
            "balanced": Profile(overlap=overlap),
            "paper": Profile(overlap=0.8, skip_empty=False),
        },
        postprocess={"ct": rules, "mr": rules},
    )
    write_manifest(folder, spec, {name: folder / name for name in ("ct.onnx", "mr.onnx")})
    return folder


def phantom(shape: tuple[int, int, int] = (24, 40, 40), *, seed: int = 0) -> NDArray[np.int16]:
    """Air, a body, a liver block of ``LIVER_VALUE`` and in it a tumour of ``TUMOUR_VALUE``."""
    z, y, x = shape
    image = np.full(shape, -1000, np.int16)
    image[:, 4 : y - 4, 4 : x - 4] = 20
    image[4 : z - 4, 8 : y - 12, 6 : x - 14] = LIVER_VALUE
    image[z // 2 - 2 : z // 2 + 2, 12:18, 10:18] = TUMOUR_VALUE
    image[0, 0, 0] += seed
    return image


def write_series(
    folder: Path,
    array: NDArray[np.int16],
    *,
    modality: str = "CT",
    canary: str = "",
    edit: Callable[[Dataset, int], None] | None = None,
) -> list[Path]:
    """One axial series, a file per slice. ``canary`` goes into every header value and file name
    that can hold patient data; ``edit(dataset, index)`` changes slices."""
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for index, plane in enumerate(array):
        path = folder / f"image{canary}{index:03d}.dcm"
        dataset = _slice(plane, index, modality, canary)
        if edit is not None:
            edit(dataset, index)
        dataset.save_as(path, enforce_file_format=True)
        files.append(path)
    return files


def _slice(plane: NDArray[np.int16], index: int, modality: str, canary: str) -> Dataset:
    root = "1.2.826.0.1.3680043.8.498.77"
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SOPClassUID = CTImageStorage if modality == "CT" else MRImageStorage
    dataset.SOPInstanceUID = f"{root}.{index + 1}.{int(plane[0, 0]) + 5000}"
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = f"{root}.1", f"{root}.2"
    dataset.FrameOfReferenceUID = f"{root}.3"
    dataset.Modality = modality
    dataset.PatientName = f"Canary^{canary}"
    dataset.PatientID = f"ID{canary}"
    dataset.PatientBirthDate, dataset.PatientSex = "19010203", "O"
    dataset.AccessionNumber = f"A{canary}"[:16]
    dataset.StudyDate, dataset.StudyTime, dataset.StudyID = "19040506", "010203", ""
    dataset.ReferringPhysicianName = f"Doctor^{canary}"
    dataset.InstitutionName = f"Clinic {canary}"
    dataset.SeriesNumber, dataset.InstanceNumber, dataset.AcquisitionNumber = 1, index + 1, 1
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    dataset.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    dataset.ImagePositionPatient = [0, 0, index * SIZE_MM]
    dataset.PixelSpacing, dataset.SliceThickness = [SIZE_MM, SIZE_MM], SIZE_MM
    dataset.Rows, dataset.Columns = plane.shape
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 16, 15
    dataset.PixelRepresentation = 1
    if modality == "CT":
        dataset.RescaleSlope, dataset.RescaleIntercept = 1, 0
    dataset.PixelData = plane.astype("<i2").tobytes()
    return dataset


def make_zip(path: Path, files: Mapping[str, Path | bytes] | list[Path]) -> Path:
    named = files if isinstance(files, Mapping) else {file.name: file for file in files}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in named.items():
            data = content if isinstance(content, bytes) else content.read_bytes()
            archive.writestr(name, data)
    return path


def make_nifti(path: Path, array: NDArray[np.int16] | None = None) -> Path:
    affine = np.diag([SIZE_MM, SIZE_MM, SIZE_MM, 1.0])
    write_nifti(path, phantom() if array is None else array, affine)
    return path


class Made:
    """The makers of this file, for tests to ask for."""

    model = staticmethod(make_model)
    phantom = staticmethod(phantom)
    series = staticmethod(write_series)
    zip = staticmethod(make_zip)
    nifti = staticmethod(make_nifti)
    patch = PATCH


@pytest.fixture(scope="session")
def made() -> Made:
    return Made()


@pytest.fixture(scope="session")
def models_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    make_model(folder / "tiny")
    return folder


@pytest.fixture
def settings(tmp_path: Path, models_dir: Path) -> Settings:
    return Settings(
        state_dir=tmp_path / "state",
        models_dir=models_dir,
        default_model="tiny",
        engine="onnxruntime",
        threads=1,
        min_free_bytes=0,
        purge_free_bytes=0,
        heartbeat_s=0.1,
        heartbeat_timeout_s=1.0,
        stale_queued_s=0.2,
        sweep_s=0.2,
    )


@pytest.fixture
def container(settings: Settings) -> Iterator[Container]:
    """Everything but running workers: jobs stay queued until a test runs them."""
    built = wiring.build(settings)
    yield built
    built.database.close()


@pytest.fixture
def ct_zip(tmp_path: Path) -> Path:
    return make_zip(tmp_path / "ct.zip", write_series(tmp_path / "series", phantom()))


@pytest.fixture(scope="session")
def orthanc_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OrthancServer]:
    """A running PACS with whatever earlier tests left in it; see ``orthanc``."""
    server = OrthancServer(tmp_path_factory.mktemp("orthanc"))
    server.start()
    yield server
    server.kill()


@pytest.fixture
def orthanc(orthanc_server: OrthancServer) -> OrthancServer:
    """A running, empty PACS."""
    orthanc_server.clear()
    return orthanc_server


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """A running Redis with whatever earlier tests left in it; see ``broker``."""
    server = RedisServer(tmp_path_factory.mktemp("redis"))
    server.start()
    yield server
    server.kill()


@pytest.fixture
def broker(redis_server: RedisServer) -> RedisServer:
    """A running, empty Redis."""
    redis_server.flush()
    return redis_server


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """A running PostgreSQL; ``new_database`` gives an empty one."""
    server = PostgresServer()
    server.start()
    yield server
    server.close()


@pytest.fixture
def postgres_url(postgres_server: PostgresServer) -> str:
    """SQLAlchemy's URL of an empty PostgreSQL database."""
    return postgres_server.new_database()


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """A running S3 server with a bucket; whoever stops it starts it again."""
    server = S3Server(tmp_path_factory.mktemp("s3"))
    server.start()
    yield server
    server.kill()


@pytest.fixture
def s3_settings(settings: Settings, s3_server: S3Server) -> Settings:
    """Artifacts under a prefix of their own."""
    changes = {
        "artifacts_url": f"s3://{s3_server.bucket}/{uuid.uuid4().hex}",
        "s3_endpoint": s3_server.url,
        "s3_access_key": s3_server.access_key,
        "s3_secret_key": s3_server.secret_key,
    }
    return settings.model_copy(update=changes)
