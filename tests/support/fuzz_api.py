"""schemathesis against a live service, as a process of its own, and what its reports say."""

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fuzz_node import KEY, LiveNode

CHECKS = ("not_a_server_error", "status_code_conformance", "content_type_conformance",
          "response_schema_conformance", "response_headers_conformance",
          "negative_data_rejection", "use_after_free")  # fmt: skip
PROGRAM = Path(sys.executable).parent / "schemathesis"
SUPPORT = Path(__file__).resolve().parent
DOCUMENT = SUPPORT.parents[1] / "openapi" / "openapi.json"
OTHERS = "methods that no path has"
LIMIT_S = 300
SEEDS = (1, 2, 3)  # from some, schemathesis makes no request at all for an operation
STREAM = "GET /v1/segmentations/{segmentation_id}/events"  # it lasts as long as its segmentation


@dataclass
class Operation:
    """Requests to one operation."""

    examples: int = 0
    slowest_s: float = 0.0
    statuses: Counter[int] = field(default_factory=Counter)

    def joined(self, other: "Operation") -> "Operation":
        slowest_s = max(self.slowest_s, other.slowest_s)
        return Operation(self.examples + other.examples, slowest_s, self.statuses + other.statuses)

    def figures(self) -> dict[str, Any]:
        return {
            "examples": self.examples, "slowest_s": round(self.slowest_s, 2),
            "statuses": {str(code): count for code, count in sorted(self.statuses.items())},
        }  # fmt: skip


@dataclass(frozen=True)
class Tested:
    """``failures``: what schemathesis calls them, with the operation, as often as it is."""

    operations: Mapping[str, Operation]
    failures: Counter[str]
    errors: int
    said: str

    @property
    def statuses(self) -> Counter[int]:
        return sum((one.statuses for one in self.operations.values()), Counter[int]())

    @property
    def is_whole(self) -> bool:
        return self.operations.keys() >= operations() - {STREAM}

    def joined(self, other: "Tested") -> "Tested":
        """With all that another run did."""
        none = Operation()
        found = {
            label: self.operations.get(label, none).joined(other.operations.get(label, none))
            for label in self.operations.keys() | other.operations.keys()
        }
        errors, said = self.errors + other.errors, self.said + other.said
        return Tested(found, self.failures + other.failures, errors, said)


def run_schemathesis(
    node: LiveNode, folder: Path, images: Path, *, phases: str, examples: int, seconds: int | None,
    key: bool = True,
) -> Tested:  # fmt: skip
    """``seconds``: how long it goes on; ``None``: until each operation had its examples. Without
    ``key`` no key is sent."""
    first, *others = SEEDS
    tested = _run(node, folder, images, phases, examples, seconds, key=key, seed=first)
    for seed in others:
        if tested.is_whole:
            break
        again = _run(node, folder, images, phases, examples, seconds, key=key, seed=seed)
        tested = tested.joined(again)
    return tested


def _run(
    node: LiveNode, folder: Path, images: Path, phases: str, examples: int, seconds: int | None, *,
    key: bool, seed: int,
) -> Tested:  # fmt: skip
    sent = ["-H", f"X-API-Key: {KEY}"] if key else []
    command = [
        str(PROGRAM), "run", f"{node.url}/openapi.json", "--url", node.url, *sent,
        "--phases", phases, "--max-examples", str(examples),
        "--checks", ",".join(CHECKS), "--continue-on-failure", "--workers", "2", "--no-color",
        "--request-timeout", "30", "--exclude-name", STREAM, "--seed", str(seed),
        "--generation-database", "none", "--warnings", "off", "--no-shrink",
        "--report", "json,ndjson", "--report-json-path", str(folder / "report.json"),
        "--report-ndjson-path", str(folder / "events.ndjson"),
    ]  # fmt: skip
    command += [] if seconds is None else ["--max-time", str(seconds)]
    hooks = {"SCHEMATHESIS_HOOKS": "fuzz_hooks", "PYTHONPATH": str(SUPPORT),
             "FUZZ_JOB": node.job, "FUZZ_IMAGES": str(images)}  # fmt: skip
    done = subprocess.run(
        command, env=os.environ | hooks, cwd=folder, timeout=(seconds or 0) + LIMIT_S,
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (folder / "report.json").is_file(), done.stdout[-3000:] + done.stderr[-3000:]
    return _read(folder, done.stdout)


def _read(folder: Path, said: str) -> Tested:
    report = json.loads((folder / "report.json").read_text())
    known = operations()
    found: dict[str, Operation] = {}
    for label, interaction in _interactions(folder / "events.ndjson"):
        operation = found.setdefault(label if label in known else OTHERS, Operation())
        answer = interaction.get("response") or {}
        operation.examples += 1
        operation.slowest_s = max(operation.slowest_s, answer.get("elapsed", 0.0))
        operation.statuses[int(answer.get("status_code", 0))] += 1
    failures = Counter(
        f"{one['title']}: {operation}" for one in report["failures"]
        for operation in one["operations"]
    )  # fmt: skip
    return Tested(found, failures, sum(one["count"] for one in report["errors"]), said)


def operations() -> set[str]:
    """Of the committed document, as ``GET /path``."""
    document = json.loads(DOCUMENT.read_text(encoding="utf-8"))
    return {f"{method.upper()} {path}" for path, methods in document["paths"].items()
            for method in methods}  # fmt: skip


def _interactions(events: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every request with the operation it was meant for."""
    for line in events.read_text().splitlines():
        recorder = json.loads(line).get("ScenarioFinished", {}).get("recorder", {})
        for name, interaction in (recorder.get("interactions") or {}).items():
            case = recorder.get("cases", {}).get(name, {}).get("value", {})
            yield f"{case.get('method')} {case.get('path')}", interaction
