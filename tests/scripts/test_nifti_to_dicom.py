"""The demo's series lies where its NIfTI file lies."""

import importlib.util
import zipfile
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import SimpleITK as sitk
from sitk_bridge import to_sitk

from service.dicom.pixels import load
from service.dicom.series import choose, scan

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "nifti_to_dicom.py"
ANGLE = np.radians(20)
TURNED = [np.cos(ANGLE), 0, np.sin(ANGLE), 0, 1, 0, -np.sin(ANGLE), 0, np.cos(ANGLE)]
DIRECTIONS = {
    "lps": [1, 0, 0, 0, 1, 0, 0, 0, 1],
    "flipped y, left-handed": [1, 0, 0, 0, -1, 0, 0, 0, 1],
    "coronal": [1, 0, 0, 0, 0, 1, 0, -1, 0],
    "turned": TURNED,
}


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("nifti_to_dicom", SCRIPT)
    if spec is None or spec.loader is None:
        pytest.fail(f"{SCRIPT} cannot be imported")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("direction", DIRECTIONS.values(), ids=DIRECTIONS)
def test_every_voxel_is_in_its_place(
    script: ModuleType, tmp_path: Path, direction: list[float]
) -> None:
    values = np.random.default_rng(0).integers(-1000, 2000, (5, 12, 10)).astype(np.float32)
    image = sitk.GetImageFromArray(values)
    image.SetSpacing((0.7, 1.1, 2.5))
    image.SetOrigin((-166.0, 187.6, -340.0))
    image.SetDirection([float(value) for value in direction])

    assert script.write_series(image, "phantom", tmp_path / "series.zip") == 5

    folder = tmp_path / "series"
    zipfile.ZipFile(tmp_path / "series.zip").extractall(folder)
    series, _ = choose(scan(sorted(folder.iterdir()), "ct"))
    volume = load(series).volume
    target = to_sitk(volume.array, volume.affine)
    expected = sitk.Resample(image, target, sitk.Transform(), sitk.sitkNearestNeighbor, -9999)
    assert np.array_equal(sitk.GetArrayFromImage(expected), volume.array)


def test_same_image_gives_same_bytes_inside(script: ModuleType, tmp_path: Path) -> None:
    image = sitk.GetImageFromArray(np.zeros((3, 4, 4), np.int16))
    for name in ("one", "two"):
        script.write_series(image, "phantom", tmp_path / f"{name}.zip")
    one, two = (zipfile.ZipFile(tmp_path / f"{name}.zip") for name in ("one", "two"))
    with one, two:
        assert [one.read(n) for n in one.namelist()] == [two.read(n) for n in two.namelist()]
