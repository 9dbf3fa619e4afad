"""Input that nobody meant: no answer is a server's error, no job ends untyped, and time and memory
stay bounded. ``--full``: at the size of docs/reliability.md."""

import faulthandler
import importlib.util
import io
import logging
import random
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from types import ModuleType
from typing import Any, TypeAlias

import pytest
import structlog
from dicom_phantoms import Grid, Recipe, write_enhanced, write_series
from fuzz_api import OTHERS, STREAM, operations, run_schemathesis
from fuzz_dicom import (
    DEFLATED,
    IMPLICIT,
    Damage,
    Elements,
    damaged,
    damages,
    places,
    read_elements,
)
from fuzz_dimse import ATTACKS, attack, request
from fuzz_intake import Gate, Memory
from fuzz_node import ASSOCIATIONS, LiveNode, live_node, settled
from fuzz_runs import fast_folder, fuzz
from fuzz_targets import TARGETS
from fuzz_uploads import archive, lies, members, nifti, nifti_lies
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from pydicom.uid import ExplicitVRLittleEndian, JPEG2000Lossless, JPEGLSLossless, RLELossless
from servers import wait_until

from service import wiring
from service.observability import configure_logging
from service.settings import Settings

MIB = 2**20
GROWTH_MIB = 600  # with the limits below; the bombs would unpack to more
STUCK_S = 100.0
LIMITS: dict[str, Any] = {
    "max_upload_bytes": 32 * MIB, "max_extracted_bytes": 64 * MIB, "max_voxels": 4 * 10**6,
    "max_files": 300, "min_free_bytes": 0, "purge_free_bytes": 0, "queue_limit": 10**6,
}  # fmt: skip
NODE_MIB = 300
OPEN = ("GET /healthz", "GET /readyz")
SHAPE = (12, 40, 40)
Record: TypeAlias = Callable[[str, dict[str, Any]], None]


class Originals(dict[str, list[Elements]]):
    """Undamaged series by kind; a short repr, because hypothesis prints it."""

    def __repr__(self) -> str:
        return "originals"


def _module(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("api_fixtures", path)
    if spec is None or spec.loader is None:
        raise ImportError(path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # its dataclasses look there
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def figures(record: Record) -> Iterator[dict[str, Any]]:
    """What each test measures, written down together."""
    found: dict[str, Any] = {}
    yield found
    record("fuzz", found)


@pytest.fixture(scope="module")
def gate(models_dir: Path) -> Iterator[Gate]:
    """The application on a socket, in this process; jobs run where a test runs them."""
    running = _module(Path(__file__).parents[1] / "api" / "conftest.py").running
    with fast_folder() as folder:
        container = wiring.build(
            Settings(
                state_dir=folder, models_dir=models_dir, default_model="tiny",
                engine="onnxruntime", threads=1, **LIMITS,
            )
        )  # fmt: skip
        with running(container) as live:
            yield Gate(container, live.http)
        container.database.close()


@pytest.fixture(scope="module")
def images(made: Any, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    files: list[Path] = made.series(tmp_path_factory.mktemp("images"), made.phantom(SHAPE))
    return files


@pytest.fixture(scope="module")
def node(models_dir: Path, images: list[Path]) -> Iterator[LiveNode]:
    """A service with keys and a listener, in a process of its own."""
    with fast_folder() as folder, live_node(folder, models_dir, images) as live:
        yield live


@pytest.fixture(scope="module")
def originals(made: Any, tmp_path_factory: pytest.TempPathFactory) -> Originals:
    folder, found = tmp_path_factory.mktemp("originals"), Originals()
    values, grid = made.phantom(SHAPE), Grid(shape=SHAPE, spacing=(2, 2, 2))
    for syntax in (ExplicitVRLittleEndian, RLELossless, JPEGLSLossless, JPEG2000Lossless):
        paths = write_series(folder / syntax, values, grid, Recipe(syntax=syntax))
        found[syntax.name] = [read_elements(path.read_bytes()) for path in paths]
    recipe = Recipe(modality="CT", intercept=-1024)
    multi = write_enhanced(folder / "enhanced", [values], grid, recipe)
    found["enhanced"] = [read_elements(multi.read_bytes())]
    return found


@pytest.fixture(scope="module", autouse=True)
def _nothing_told() -> Iterator[None]:
    """No log holds a word of any of all the headers."""
    stream = io.StringIO()
    root = logging.getLogger()
    handlers, level = root.handlers, root.level
    configure_logging("info", stream)
    yield
    structlog.reset_defaults()
    logging.captureWarnings(False)
    root.handlers, root.level = handlers, level
    assert "canary" not in stream.getvalue().lower()


@pytest.fixture(autouse=True)
def _never_stuck() -> Iterator[None]:
    """What holds the interpreter's lock for ever cannot be told by a timeout: end with a trace."""
    yield
    faulthandler.cancel_dump_traceback_later()


def sized(full: bool, quick: int, many: int) -> Callable[[Any], Any]:
    """Quick runs try the same each time, full ones something new."""
    return settings(
        max_examples=many if full else quick, deadline=None, derandomize=not full, database=None,
        phases=[Phase.generate], suppress_health_check=list(HealthCheck),
        report_multiple_bugs=False,
    )  # fmt: skip


def measured(gate: Gate, check: Callable[[], None]) -> dict[str, Any]:
    """Run the examples; what they gave, and what they cost."""
    gate.answers.clear(), gate.ends.clear()
    gate.slowest_s = gate.slowest_job_s = 0.0
    memory = Memory()
    check()
    assert memory.growth_mib < GROWTH_MIB
    return gate.figures() | {"memory_growth_mib": memory.growth_mib}


def test_damaged_dicom(
    gate: Gate, originals: Originals, figures: dict[str, Any], full: bool
) -> None:
    @sized(full, 50, 2000)
    @given(
        kind=st.sampled_from(sorted(originals)),
        hits=st.lists(st.tuples(places, damages), min_size=1, max_size=4),
        encoding=st.sampled_from(("", "", IMPLICIT, DEFLATED)),
        zipped=st.booleans(),
    )
    def check(kind: str, hits: list[tuple[str, Damage]], encoding: str, zipped: bool) -> None:
        faulthandler.dump_traceback_later(STUCK_S, exit=True)
        native = kind in ("enhanced", ExplicitVRLittleEndian.name)
        files = list(damaged(originals[kind], hits, encoding if native else ""))
        gate.send(archive([], [], files, zip64=False, cut=None) if zipped else files)

    figures["damaged DICOM"] = measured(gate, check)
    assert gate.answers["accepted"] > 0
    assert gate.answers.total() - gate.answers["accepted"] > 0


def test_archives_that_lie(
    gate: Gate, originals: Originals, figures: dict[str, Any], full: bool
) -> None:
    files = list(damaged(originals[ExplicitVRLittleEndian.name], [], ""))

    @sized(full, 80, 2000)
    @given(
        made=st.just([]) | st.lists(members, max_size=3),
        told=st.just([]) | st.lists(lies, max_size=4),
        count=st.sampled_from((0, 1, 3)),
        zip64=st.booleans(),
        cut=st.none() | st.floats(0, 1),
    )
    def check(made: Any, told: Any, count: int, zip64: bool, cut: float | None) -> None:
        faulthandler.dump_traceback_later(STUCK_S, exit=True)
        data = archive(made, told, files[:count], zip64=zip64, cut=cut)
        gate.send(data, "application/zip")

    figures["archives that lie"] = measured(gate, check)


def test_niftis_that_lie(
    gate: Gate, made: Any, figures: dict[str, Any], full: bool, tmp_path: Path
) -> None:
    plain = made.nifti(tmp_path / "x.nii", made.phantom(SHAPE)).read_bytes()

    @sized(full, 80, 2000)
    @given(
        told=nifti_lies,
        packed=st.sampled_from(("no", "gzip", "bomb", "torn")),
        cut=st.none() | st.floats(0, 1),
    )
    def check(told: list[tuple[str, float]], packed: str, cut: float | None) -> None:
        faulthandler.dump_traceback_later(STUCK_S, exit=True)
        gate.send(nifti(plain, told, packed=packed, cut=cut))

    figures["NIfTI files that lie"] = measured(gate, check)
    assert gate.answers["accepted"] > 0


def test_parsers(tmp_path: Path, figures: dict[str, Any], full: bool) -> None:
    """Coverage-guided; an input that a parser cannot do stays in the folder that is named."""
    runs = fuzz(TARGETS, 60 if full else 2, tmp_path)
    figures["parsers"] = {run.name: run.figures() for run in runs}
    for run in runs:
        told = "\n".join([*map(str, run.failed), run.log[-4000:]])
        assert not run.failed, f"{run.name} failed on\n{told}"
        assert run.executions > len(run.name), f"{run.name} did nothing\n{told}"


def test_the_api(
    node: LiveNode, images: list[Path], figures: dict[str, Any], full: bool, tmp_path: Path
) -> None:
    phases = "examples,coverage,fuzzing,stateful" if full else "fuzzing"
    size = {"examples": 400, "seconds": 420} if full else {"examples": 6, "seconds": None}
    before = node.rss_mib
    tested = run_schemathesis(node, tmp_path, images[0].parent, phases=phases, **size)
    assert not tested.failures, f"{tested.failures}\n{tested.said[-8000:]}"
    assert tested.errors == 0, tested.said[-4000:]
    assert not [code for code in tested.statuses if not 200 <= code < 500]
    assert tested.operations.keys() >= operations() - {STREAM}
    assert {200, 404, 422} <= tested.statuses.keys()
    assert node.rss_mib - before < NODE_MIB
    figures["API"] = {
        "operations": {label: one.figures() for label, one in sorted(tested.operations.items())},
        "memory_growth_mib": node.rss_mib - before,
    }


def test_the_api_without_a_key(
    node: LiveNode, images: list[Path], figures: dict[str, Any], full: bool, tmp_path: Path
) -> None:
    size = {"examples": 20, "seconds": None} if full else {"examples": 1, "seconds": None}
    phases = "coverage,fuzzing" if full else "fuzzing"
    tested = run_schemathesis(
        node, tmp_path, images[0].parent, phases=phases, key=False, **size
    )  # fmt: skip
    assert not tested.failures, f"{tested.failures}\n{tested.said[-8000:]}"
    for label, one in tested.operations.items():
        allowed = {200} if label in OPEN else {405} if label == OTHERS else {401}
        assert one.statuses.keys() <= allowed, label
    assert tested.operations.keys() >= operations() - {STREAM}
    figures["API without a key"] = {"examples": tested.statuses.total()}


def test_the_listener(node: LiveNode, figures: dict[str, Any], full: bool) -> None:
    """Whatever comes, the next caller is answered; nothing is left of those who came."""
    assert node.echoes()
    threads, memory, chance = node.threads, node.rss_mib, random.Random(7)  # noqa: S311
    counts: Counter[str] = Counter()
    for _ in range(100 if full else 4):
        for name, make in ATTACKS.items():
            attack(node.connect(), make(chance), chance)
            counts[name] += 1
        wait_until(node.echoes, "the listener lets nobody in", 30)
    silent = (8 if full else 2) * ASSOCIATIONS  # 4 times are taken in, the rest is turned away
    with ExitStack() as stack:
        for one in [stack.enter_context(node.connect()) for _ in range(silent)]:
            one.sendall(request()[: chance.randrange(1, 60)])
        began = time.monotonic()
        wait_until(node.echoes, "silent callers keep the others out", 40)
        kept_out_s = time.monotonic() - began
    left = settled(node, threads)
    assert left <= threads
    assert node.rss_mib - memory < NODE_MIB
    figures["listener"] = {
        "attacks": dict(counts), "silent_callers": silent,
        "others_let_in_after_s": round(kept_out_s, 1),
        "memory_growth_mib": node.rss_mib - memory, "threads_left": left - threads,
    }  # fmt: skip
