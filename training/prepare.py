"""From public downloads to prepared cases, and from those to the preprocessing cache.

``prepare`` writes ``<root>/{ct,mr}/<case>/{image,label}.nii.gz`` and the index ``cases.json``;
``check_and_cache`` looks at every case of a configuration and preprocesses it. Both go on where
they were stopped.
"""

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache as once
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError
from rich.box import SIMPLE
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from model.errors import ConfigError, InputError
from model.nifti import read_nifti

from .cache import Maker, file_stem, fill, list_makers
from .cases import INDEX, list_cases
from .config import load_config
from .parallel import each
from .sources import Duplicate, Entry, Facts, check_case, find_duplicates, find_records
from .sources.checks import shape_moments
from .sources.convert import LABEL, Broken, Row, convert
from .sources.pair import as_mask

CACHE = Path("runs") / "cache"
_FACTS = TypeAdapter(Facts)
_WIDTH = 125  # of the table in a log
_FACTS_FILE = "facts1.json"  # another number when the checks change

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Report:
    """What ``prepare`` did. ``rows``: the source's cases in the index. ``left_out``: cases that
    another data set holds. ``duplicates``: all that were found, left out or not."""

    rows: list[Row]
    broken: list[Broken]
    left_out: list[str]
    duplicates: list[Duplicate]


@dataclass(frozen=True)
class Checked:
    """A case of a configuration, and what was measured of it."""

    case: str
    modality: str
    patient: str
    quality: str
    facts: Facts


def prepare(
    source: str,
    folder: Path,
    root: Path,
    *,
    workers: int = 1,
    skip_broken: bool = False,
    leave_out_duplicates: bool = False,
    against: Sequence[Path] = (),
    role: str = "develop",
    console: Console | None = None,
) -> Report:
    """Convert the download ``folder`` of ``source`` (a name of ``SOURCES``) into ``root``.

    ``leave_out_duplicates``: neither LiTS cases that 3D-IRCADb-1 holds too, nor duplicates by mask
    of what is in ``root`` or in the prepared roots ``against``, come into the index. ``role``:
    ``develop`` or ``test``. Other cases of an index that is there stay in it.

    Raises ``ConfigError`` for a folder without cases, an unknown source and a root without index;
    ``InputError`` naming the first broken case, unless ``skip_broken``; ``AqcfError``
    (``worker_died``).
    """
    console = console or Console()
    records = find_records(source, folder)
    overlap = [r.name for r in records if leave_out_duplicates and r.overlaps]
    wanted = [record for record in records if record.name not in overlap]
    names = {record.name for record in records}
    known = [e for place in (root, *against) for e in _entries(place, names, place == root)]
    outcomes = _run("converting", partial(convert, root), wanted, workers, skip_broken, console)
    broken = [outcome for outcome in outcomes if isinstance(outcome, Broken)]
    rows = [row.model_copy(update={"role": role}) for row in outcomes if isinstance(row, Row)]
    duplicates = find_duplicates([_entry(row.model_dump()) for row in rows], known)
    doubled = {d.case for d in duplicates if d.by == "mask" and leave_out_duplicates}
    rows = [row for row in rows if row.case not in doubled]
    _write_index(root, rows, names)
    report = Report(rows, broken, [*overlap, *sorted(doubled)], duplicates)
    _tell(report, console)
    return report


def check_and_cache(
    config_path: Path,
    *,
    workers: int = 1,
    cache: Path = CACHE,
    root: Path | None = None,
    skip_broken: bool = False,
    console: Console | None = None,
) -> list[Checked]:
    """Check all cases of a configuration and fill ``cache`` with what its runs will read.

    ``root`` in place of the configuration's. Raises what ``list_cases`` and ``prepare`` raise.
    """
    console = console or Console()
    config = load_config(config_path)
    if root is not None:
        data = config.data.model_copy(update={"root": root})
        config = config.model_copy(update={"data": data})
    jobs = _by_case(list_makers(list_cases(config.data), config))
    check = partial(_check_one, cache)
    outcomes = _run("preprocessing", check, jobs, workers, skip_broken, console)
    broken = [outcome for outcome in outcomes if isinstance(outcome, Broken)]
    checked = [outcome for outcome in outcomes if isinstance(outcome, Checked)]
    _show([(c.case, c.modality, c.quality, c.facts) for c in checked], console)
    _tell_broken(broken, console)
    _tell_duplicates(_doubled(checked), console)
    return checked


def _run(
    what: str,
    function: Callable[[Item], Result],
    items: Sequence[Item],
    workers: int,
    skip_broken: bool,
    console: Console,
) -> list[Result]:
    """All results in the order of the items, with a progress bar. Stops at a broken case."""
    results: dict[int, Result] = {}
    with Progress(console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task(what, total=len(items))
        for index, result in each(function, items, workers):
            if isinstance(result, Broken) and not skip_broken:
                raise result.error()
            results[index] = result
            bar.advance(task)
    return [results[index] for index in sorted(results)]


def _entries(root: Path, without: set[str], may_be_new: bool) -> list[Entry]:
    """What the cases of a prepared root are recognised by; measured where its index is bare."""
    index = root / INDEX
    if not index.is_file():
        if may_be_new:
            return []
        raise ConfigError(f"{index} does not exist; {root} is not a prepared root")
    rows = _read_index(index)
    if may_be_new:
        rows = [row for row in rows if row["case"] not in without]
    return [replace(_entry(_measured(root, row)), where=str(root)) for row in rows]


def _read_index(index: Path) -> list[dict[str, Any]]:
    try:
        rows = json.loads(index.read_text(encoding="utf-8"))
        return [{**row, "case": str(row["case"])} for row in rows]
    except (ValueError, TypeError, KeyError) as error:
        raise ConfigError(f"{index} is not an index of cases") from error


def _measured(root: Path, row: dict[str, Any]) -> dict[str, Any]:
    if "moments" in row:
        return row
    file = root / row["case"] / LABEL
    if not file.is_file():
        raise ConfigError(f"case {row['case']!r}: {file} does not exist")
    label = read_nifti(file, row["modality"])
    mask = as_mask(label.array, str(file))
    return {
        "source": "", **row, "shape": label.shape, "spacing_mm": label.spacing_mm,
        "liver_voxels": int((mask == 1).sum()), "tumour_voxels": int((mask == 2).sum()),
        "moments": shape_moments(mask),
    }  # fmt: skip


def _entry(row: dict[str, Any]) -> Entry:
    return Entry(
        row["case"], row["patient"], row["source"], tuple(row["shape"]), tuple(row["spacing_mm"]),
        row["liver_voxels"], row["tumour_voxels"], tuple(row["moments"]),
    )  # fmt: skip


def _write_index(root: Path, rows: Sequence[Row], replaced: set[str]) -> None:
    index = root / INDEX
    others = _read_index(index) if index.is_file() else []
    kept = [row for row in others if row["case"] not in replaced]
    all_rows = [*kept, *(row.model_dump(mode="json") for row in rows)]
    text = json.dumps(sorted(all_rows, key=lambda row: str(row["case"])), indent=1)
    root.mkdir(parents=True, exist_ok=True)
    _write_text(index, text + "\n")


def _write_text(file: Path, text: str) -> None:
    half = file.with_name(f".{file.name}.{os.getpid()}.partial")
    half.write_text(text, encoding="utf-8")
    half.replace(file)


def _by_case(makers: Sequence[Maker]) -> list[tuple[Maker, ...]]:
    """Makers of one case together, so that it is read once; each phantom by itself."""
    jobs: dict[str, list[Maker]] = {}
    for maker in makers:
        jobs.setdefault(maker.name, []).append(maker)
    return [tuple(job) for job in jobs.values()]


def _check_one(cache: Path, makers: tuple[Maker, ...]) -> Checked | Broken | None:
    """Check a case and preprocess it in every way that is asked for; a phantom is only made."""
    first = makers[0]
    load = once(first.load)
    try:
        facts = None if first.case is None else _facts(cache, first, load)
        for maker in makers:
            fill(cache, maker, load)
    except InputError as error:
        return Broken(first.name, error.message, error.code)
    if first.case is None or facts is None:
        return None
    return Checked(first.name, first.modality, first.case.patient, first.quality, facts)


def _facts(cache: Path, maker: Maker, load: Callable[[], Any]) -> Facts:
    """What was measured, kept beside the arrays."""
    stem = file_stem(cache, maker)
    file = stem.with_name(f"{stem.name}.{_FACTS_FILE}")
    try:
        return _FACTS.validate_json(file.read_bytes())
    except (OSError, ValidationError):
        facts = check_case(*load())
    cache.mkdir(parents=True, exist_ok=True)
    _write_text(file, _FACTS.dump_json(facts).decode())
    return facts


def _doubled(checked: Sequence[Checked]) -> list[Duplicate]:
    """Cases of different patients that are one scan: a split by patient does not part them."""
    entries = [
        Entry(c.case, c.patient, "", c.facts.shape, c.facts.spacing_mm, c.facts.liver_voxels,
              c.facts.tumour_voxels, c.facts.moments)
        for c in checked
    ]  # fmt: skip
    return find_duplicates(entries, [])


def _tell(report: Report, console: Console) -> None:
    _show([(r.case, r.modality, r.labels, _facts_of(r)) for r in report.rows], console)
    _tell_broken(report.broken, console)
    _tell_duplicates(report.duplicates, console)
    for name in report.left_out:
        _say(console, f"left out: {name}")
    shared = [row for row in report.rows if row.overlaps]
    if shared:
        _say(
            console,
            f"warning: {len(shared)} cases are {shared[0].overlaps}'s too ({shared[0].case} ..): "
            "that is no external test for a model that saw them; --leave-out-overlap leaves "
            "them out",
        )


def _facts_of(row: Row) -> Facts:
    return Facts(**{name: getattr(row, name) for name in Facts.__dataclass_fields__})


def _tell_broken(broken: Sequence[Broken], console: Console) -> None:
    for one in broken:
        _say(console, f"skipped: {one.name}: {one.code}: {one.message}")


def _tell_duplicates(duplicates: Sequence[Duplicate], console: Console) -> None:
    for d in duplicates:
        means = "has the mask of" if d.by == "mask" else "has the shape and spacing of"
        _say(console, f"warning: {d.case} {means} {d.of} {d.where}".rstrip())


def _show(rows: Sequence[tuple[str, str, str, Facts]], console: Console) -> None:
    """A line per case, then what is odd."""
    table = Table(box=SIMPLE, padding=(0, 1, 0, 0))
    for heading in ("case", "modality", "labels", "spacing mm (z y x)", "shape", "axes",
                    "liver ml", "tumour ml", "lesions"):  # fmt: skip
        table.add_column(heading, overflow="fold")
    for case, modality, quality, facts in rows:
        table.add_row(
            case, modality, quality, " ".join(f"{mm:.2f}" for mm in facts.spacing_mm),
            " ".join(map(str, facts.shape)), facts.orientation, f"{facts.liver_ml:.0f}",
            f"{facts.tumour_ml:.1f}", str(facts.lesions),
        )  # fmt: skip
    if not console.is_terminal:
        console.width = max(console.width, _WIDTH)
    console.print(table)
    for case, _, _, facts in rows:
        for warning in facts.warnings:
            _say(console, f"warning: {case}: {warning}")


def _say(console: Console, line: str) -> None:
    console.print(line, highlight=False, soft_wrap=True, markup=False)
