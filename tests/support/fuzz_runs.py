"""Runs ``fuzz_harness`` as a process of its own, and reads what libFuzzer says."""

import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from fuzz_seeds import dictionary, seeds

SUPPORT = Path(__file__).resolve().parent
ROOT = SUPPORT.parents[1]
MEMORY = Path("/dev/shm")  # noqa: S108
STATISTICS = re.compile(r"stat::(\w+):\s+(\d+)")
COVERED = re.compile(r"cov: (\d+)")
LOADING_S = 90.0  # on a machine that has other work


@dataclass(frozen=True)
class Run:
    """What became of one target. ``failed``: the inputs that it cannot do, as files."""

    name: str
    executions: int
    seconds: float
    covered: int
    slowest_s: int
    peak_mib: int
    failed: tuple[Path, ...]
    log: str

    @property
    def kinds(self) -> Mapping[str, int]:
        """How many crashes, timeouts and inputs that took too much memory."""
        names = [file.name for file in self.failed]
        kinds = {"crashes": "failed-crash", "timeouts": "failed-timeout", "memory": "failed-oom"}
        return {kind: sum(name.startswith(start) for name in names)
                for kind, start in kinds.items()}  # fmt: skip

    def figures(self) -> dict[str, object]:
        return {
            "executions": self.executions, "seconds": round(self.seconds, 1), **self.kinds,
            "edges": self.covered, "slowest_s": self.slowest_s, "peak_mib": self.peak_mib,
        }  # fmt: skip


def fuzz(names: Iterable[str], seconds: int, folder: Path) -> list[Run]:
    """Fuzz each target for so many seconds, as many at a time as there are cores."""
    wanted = list(names)
    for name in wanted:
        _prepare(name, folder / name)
    cores = len(os.sched_getaffinity(0))
    limit = LOADING_S + 2 * (seconds + 15) * -(-len(wanted) // cores)
    command = [sys.executable, str(SUPPORT / "fuzz_harness.py"), str(seconds), str(cores)]
    path = os.pathsep.join([str(SUPPORT), str(ROOT)])
    began = time.monotonic()
    with fast_folder() as fast:
        (folder / "fast").symlink_to(fast)
        done = subprocess.run(
            [*command, str(folder), *wanted], env=os.environ | {"PYTHONPATH": path}, cwd=folder,
            timeout=limit, capture_output=True, text=True, check=False,
        )  # fmt: skip
    assert done.returncode == 0, f"{done.stdout[-2000:]}{done.stderr[-2000:]}"
    print(f"{len(wanted)} targets in {time.monotonic() - began:.0f} s")
    return [_read(name, folder / name) for name in wanted]


@contextmanager
def fast_folder() -> Iterator[Path]:
    """Scratch space in memory: thousands of small files, each synced, are slow on a disk."""
    with tempfile.TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else None) as name:
        yield Path(name)


def _prepare(name: str, folder: Path) -> None:
    (folder / "corpus").mkdir(parents=True)
    (folder / "scratch").mkdir()
    for number, seed in enumerate(seeds(name, folder / "scratch")):
        (folder / "corpus" / f"seed-{number}").write_bytes(seed)
    (folder / "words").write_text(dictionary(name))


def _read(name: str, folder: Path) -> Run:
    log = (folder / "log").read_text(errors="replace")
    said = {key: int(value) for key, value in STATISTICS.findall(log)}
    executions = said.get("number_of_executed_units", 0)
    covered = [int(found) for found in COVERED.findall(log)]
    rate = max(said.get("average_exec_per_sec", 0), 1)
    return Run(
        name=name,
        executions=executions,
        seconds=executions / rate,
        covered=max(covered, default=0),
        slowest_s=said.get("slowest_unit_time_sec", 0),
        peak_mib=said.get("peak_rss_mb", 0),
        failed=tuple(sorted(folder.glob("failed-*"))),
        log=log,
    )
