"""Real series unzipped once, and a watch over the logs."""

import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from dicom_peers import Real


@pytest.fixture(scope="session")
def real(data_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Real:
    """Files of a zip of real DICOM, by its name."""
    folder = tmp_path_factory.mktemp("real")

    def files(name: str) -> list[Path]:
        target = folder / name
        if not target.exists():
            with zipfile.ZipFile(data_dir / "dicom" / f"{name}.zip") as archive:
                archive.extractall(target)
        return sorted(path for path in target.rglob("*") if path.is_file())

    return files


@pytest.fixture(autouse=True)
def _no_patient_data_logged(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Whatever a test does, nothing of a header reaches a log."""
    caplog.set_level("DEBUG")
    yield
    assert "canary" not in caplog.text.lower()
