"""Real data, where it lies: ``AQCF_DATA``, by default ``../shared/data`` beside the checkout."""

import os
from pathlib import Path

import pytest

BESIDE = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder of real cases; the test is skipped where it is absent."""
    folder = Path(os.environ.get("AQCF_DATA", BESIDE))
    if not folder.is_dir():
        pytest.skip(f"no real data in {folder}; set AQCF_DATA")
    return folder
