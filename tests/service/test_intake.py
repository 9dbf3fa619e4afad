"""Bad input: each kind has its code, takes little time, and leaves no job and no file."""

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from pydicom import Dataset
from pydicom.uid import RTStructureSetStorage, SegmentationStorage

from model.errors import AqcfError, InputError
from service import intake, sweep
from service.container import Container
from service.domain import Status, SubmitOptions
from service.errors import BusyError, ModelUnavailableError, StorageFullError
from service.registry import ModelRegistry
from service.storage.artifacts import FolderStore
from service.uploads import Upload

Maker = Callable[[Path, Any], list[Path]]
CT = SubmitOptions("ct")


def nothing_left(container: Container) -> bool:
    store = container.artifacts
    return not (
        container.jobs.page().jobs
        or store.input_keys()
        or store.job_ids()
        or list(store.staging.iterdir())
    )


def edited(edit: Callable[[Dataset, int], None], slices: int = 24) -> Maker:
    return lambda folder, made: made.series(folder, made.phantom()[:slices], edit=edit)


def keep(_dataset: Dataset, _index: int) -> None:
    """As it is."""


def colour(dataset: Dataset, _index: int) -> None:
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 3, "RGB"
    dataset.PlanarConfiguration = 0
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 8, 8, 7
    dataset.PixelRepresentation = 0
    dataset.PixelData = bytes(dataset.Rows * dataset.Columns * 3)


def of_class(uid: str, modality: str) -> Callable[[Dataset, int], None]:
    def edit(dataset: Dataset, _index: int) -> None:
        dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = uid
        dataset.Modality = modality

    return edit


def localizer(dataset: Dataset, _index: int) -> None:
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]


def turning(dataset: Dataset, index: int) -> None:
    """Every slice looks another way."""
    angle = 0.2 * index
    dataset.ImageOrientationPatient = [np.cos(angle), np.sin(angle), 0, 0, 0, -1]


def varying_matrix(dataset: Dataset, index: int) -> None:
    if index % 2:
        dataset.Rows, dataset.Columns = 20, 80


def truncated(dataset: Dataset, _index: int) -> None:
    dataset.PixelData = dataset.PixelData[:100]


def text_as_dicom(folder: Path, _made: Any) -> list[Path]:
    folder.mkdir()
    (folder / "a.dcm").write_text("this is no image, it is a letter about one\n" * 20)
    return [folder / "a.dcm"]


def nifti(shape: tuple[int, ...], value: float = 100.0) -> Maker:
    def make(folder: Path, _made: Any) -> list[Path]:
        folder.mkdir()
        image = nibabel.Nifti1Image(np.full(shape, value, np.float32), np.diag([2, 2, 2, 1]))
        nibabel.save(image, folder / "a.nii.gz")
        return [folder / "a.nii.gz"]

    return make


def patched(offset: int, value: bytes) -> Maker:
    """A NIfTI header with other bytes in one place."""

    def make(folder: Path, made: Any) -> list[Path]:
        folder.mkdir()
        path = made.nifti(folder / "a.nii")
        data = bytearray(path.read_bytes())
        data[offset : offset + len(value)] = value
        path.write_bytes(data)
        return [path]

    return make


def cut_nifti(folder: Path, made: Any) -> list[Path]:
    folder.mkdir()
    path = made.nifti(folder / "a.nii.gz")
    path.write_bytes(path.read_bytes()[:-200])
    return [path]


NAN = np.array([np.nan], "<f4").tobytes()
SIDES = np.array([3000, 3000, 3000], "<i2").tobytes()

BAD: dict[str, tuple[Maker, set[str]]] = {
    "one slice": (edited(keep, 1), {"too_few_slices"}),
    "text": (text_as_dicom, {"not_dicom"}),
    "truncated": (edited(truncated), {"truncated_pixel_data"}),
    "colour": (edited(colour), {"colour_image"}),
    "seg": (edited(of_class(SegmentationStorage, "SEG")), {"not_an_image"}),
    "rtstruct": (edited(of_class(RTStructureSetStorage, "RTSTRUCT")), {"not_an_image"}),
    "localizer": (edited(localizer), {"localizer_only"}),
    "orientations": (edited(turning), {"mixed_orientation", "too_few_slices"}),
    "matrix": (edited(varying_matrix), {"inconsistent_pixel_grid"}),
    "2-D": (nifti((40, 40)), {"not_3d"}),
    "4-D": (nifti((20, 20, 20, 3)), {"not_3d"}),
    "NaN": (nifti((20, 20, 20), np.nan), {"no_finite_voxels"}),
    "no spacing": (patched(252, bytes(4)), {"no_spacing"}),
    "giant": (patched(42, SIDES), {"input_too_large"}),
    "cut": (cut_nifti, {"truncated_file"}),
    "offset": (patched(108, NAN), {"not_nifti"}),
}


@pytest.mark.parametrize("kind", BAD)
@pytest.mark.parametrize("zipped", [False, True])
def test_bad_input(
    tmp_path: Path, container: Container, made: Any, kind: str, zipped: bool
) -> None:
    make, codes = BAD[kind]
    paths = make(tmp_path / "upload", made)
    upload = Upload((made.zip(tmp_path / "a.zip", paths),) if zipped else tuple(paths))
    start = time.process_time()
    with pytest.raises(InputError) as caught:
        intake.submit(container, upload, CT)
    assert time.process_time() - start < 5
    assert caught.value.code in codes
    assert nothing_left(container)
    assert container.audit.entries() == ()


def test_mr_sent_as_ct(tmp_path: Path, container: Container, made: Any) -> None:
    files = made.series(tmp_path / "mr", made.phantom(), modality="MR")
    with pytest.raises(InputError) as caught:
        intake.submit(container, Upload(tuple(files)), CT)
    assert caught.value.code == "wrong_modality"
    assert nothing_left(container)
    assert intake.submit(container, Upload(tuple(files)), SubmitOptions("mr")).modality == "mr"


def test_a_series_becomes_a_job(container: Container, ct_zip: Path) -> None:
    job = intake.submit(container, Upload((ct_zip,)), CT)
    assert (job.status, job.kind, job.model_id, job.profile) == (
        Status.QUEUED,
        "dicom",
        "tiny",
        "balanced",
    )
    assert [line["status"] for line in job.receipt] == ["chosen"]
    assert len(container.artifacts.input_files(job.input_key)) == 24
    assert not list(container.artifacts.staging.iterdir())
    assert [entry.action for entry in container.audit.entries(job.id)] == ["submit"]
    assert ct_zip.exists()


def test_the_same_series_twice_is_one_job(
    tmp_path: Path, container: Container, ct_zip: Path, made: Any
) -> None:
    job = intake.submit(container, Upload((ct_zip,)), CT)
    folder = tmp_path / "again"
    made.series(folder, made.phantom())
    assert intake.submit(container, Upload((folder,)), CT).id == job.id
    other = intake.submit(container, Upload((folder,)), replace(CT, profile="paper"))
    assert other.id != job.id
    assert other.input_key == job.input_key
    made.series(tmp_path / "other", made.phantom(seed=1))
    assert intake.submit(container, Upload((tmp_path / "other",)), CT).id != job.id
    assert len(container.artifacts.input_keys()) == 2


@pytest.mark.parametrize(
    ("options", "code"),
    [
        (replace(CT, model="huge"), "unknown_model"),
        (replace(CT, profile="best"), "unknown_profile"),
        (replace(CT, series="s9"), "unknown_series"),
    ],
)
def test_options_that_do_not_exist(
    container: Container, ct_zip: Path, options: SubmitOptions, code: str
) -> None:
    with pytest.raises(InputError) as caught:
        intake.submit(container, Upload((ct_zip,)), options)
    assert caught.value.code == code
    assert nothing_left(container)


def test_no_model_no_room_no_place(tmp_path: Path, container: Container, ct_zip: Path) -> None:
    def refused(changed: Container) -> AqcfError:
        with pytest.raises(AqcfError) as caught:
            intake.submit(changed, Upload((ct_zip,)), CT)
        assert nothing_left(container)
        return caught.value

    none = replace(container, models=ModelRegistry(tmp_path / "none", "small"))
    assert isinstance(refused(none), ModelUnavailableError)
    full = container.settings.model_copy(update={"min_free_bytes": 2**60})
    assert isinstance(refused(replace(container, settings=full)), StorageFullError)
    busy = container.settings.model_copy(update={"queue_limit": 0})
    assert isinstance(refused(replace(container, settings=busy)), BusyError)


def test_a_zip_that_would_fill_the_disk_is_refused_before_it_is_unpacked(
    container: Container, ct_zip: Path
) -> None:
    class Nearly(FolderStore):
        def free_bytes(self) -> int:
            return 100_000

    settings = container.settings.model_copy(update={"min_free_bytes": 90_000})
    store = Nearly(settings.artifacts_dir, settings.staging_dir)
    with pytest.raises(StorageFullError):
        intake.submit(replace(container, settings=settings, artifacts=store), Upload((ct_zip,)), CT)
    assert nothing_left(container)


def test_a_purge_takes_everything(container: Container, ct_zip: Path) -> None:
    job = intake.submit(container, Upload((ct_zip,)), CT)
    sweep.remove(container, job.id)
    assert nothing_left(container)
    assert container.audit.entries(job.id)
