"""Two sizes of each test: quick for every run, ``--full`` for the published figures."""

import json
import os
import platform
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(scope="session")
def full(request: pytest.FixtureRequest) -> bool:
    """Whether the figures of docs/reliability.md are to be made."""
    return bool(request.config.getoption("--full"))


@pytest.fixture(scope="session")
def record(request: pytest.FixtureRequest, full: bool) -> Callable[[str, dict[str, Any]], None]:
    """``record(name, figures)`` prints what was measured, and writes ``name.json`` into the folder
    of ``--figures``, if that was given."""
    folder: Path | None = request.config.getoption("--figures")

    def write(name: str, figures: dict[str, Any]) -> None:
        made = {"date": f"{datetime.now(UTC):%Y-%m-%d}", "full": full, "machine": _machine()}
        text = json.dumps(made | figures, indent=2)
        print(f"\n{name}: {text}")
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"{name}.json").write_text(text + "\n")

    return write


def _machine() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = [line for line in lines if "model name" in line]
    processor = names[0].partition(":")[2].strip() if names else platform.machine()
    return f"{len(os.sched_getaffinity(0))} cores of {processor}"
