"""Series that arrive, without a network."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from arriving import QUIET_S, RULES, Arriving

from service.container import Container


@pytest.fixture
def arriving(container: Container, tmp_path: Path, made: Any) -> Arriving:
    """Quick to lose patience."""
    arriving = Arriving(replace(container, site=RULES), tmp_path / "sent", made)
    return arriving.with_settings(quiet_s=QUIET_S)
