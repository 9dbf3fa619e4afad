"""What both benchmarks share: alternating timings, a table, a JSON file, the machine in words."""

import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table


@dataclass(frozen=True)
class Timing:
    """Seconds of each counted round."""

    seconds: tuple[float, ...]

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)


def alternate(
    runs: Mapping[str, Callable[[], object]], rounds: int, tell: Callable[[str], None]
) -> dict[str, Timing]:
    """Time every run in turn, ``rounds`` times after one warm-up, so that drift hits all alike."""
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for number in range(rounds + 1):
        for name, run in runs.items():
            tell(f"round {number} of {rounds}: {name}" if number else f"warm-up: {name}")
            start = time.perf_counter()
            run()
            if number:
                seconds[name].append(time.perf_counter() - start)
    return {name: Timing(tuple(values)) for name, values in seconds.items()}


def show(title: str, columns: list[str], rows: list[list[str]]) -> None:
    table = Table(*columns, title=title)
    for row in rows:
        table.add_row(*row)
    Console().print(table)


def write_json(path: Path, content: dict[str, object]) -> None:
    path.write_text(json.dumps({"machine": machine(), **content}, indent=2) + "\n", "utf-8")
    Console().print(f"written: {path}")


def machine() -> dict[str, object]:
    """The processor and how many of its cores this process may use."""
    cpuinfo = Path("/proc/cpuinfo")
    names = [
        line.split(":", 1)[1].strip()
        for line in (cpuinfo.read_text().splitlines() if cpuinfo.exists() else [])
        if line.startswith("model name")
    ]
    return {
        "processor": names[0] if names else platform.processor() or platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
    }
