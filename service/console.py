"""What the command line shows: tables and lines on stdout, progress and errors on stderr."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from model.errors import AqcfError

from .domain import Stage

if TYPE_CHECKING:
    from .oneshot import OneShot
    from .produce import Report
    from .registry import ModelRegistry

WEIGHTS: Mapping[Stage, float] = {
    Stage.READ: 5,
    Stage.PREPARE: 5,
    Stage.INFERENCE: 75,
    Stage.RESTORE: 5,
    Stage.POSTPROCESS: 2,
    Stage.MEASURE: 1,
    Stage.SEG: 3,
    Stage.SR: 2,
    Stage.STORE: 2,
}
LESIONS_SHOWN = 10
OUTCOMES = {
    "lesion_found": "lesion found",
    "no_lesion": "no lesion found",
    "not_evaluable": "not evaluable",
}
out = Console(highlight=False)
err = Console(stderr=True, highlight=False)


@contextmanager
def progress_bar() -> "Iterator[Report]":
    """A bar over all stages on stderr; gives the function that moves it."""
    columns = (TextColumn("{task.description:<12}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=err, transient=True) as bar:
        task = bar.add_task("read", total=sum(WEIGHTS.values()))
        stages = list(WEIGHTS)

        def report(stage: Stage, fraction: float) -> None:
            before = sum(WEIGHTS[earlier] for earlier in stages[: stages.index(stage)])
            done = before + WEIGHTS[stage] * fraction
            bar.update(task, description=stage.value, completed=done)

        yield report


def show_error(error: AqcfError) -> None:
    """The stable code and the sentence, and the receipt where there is one."""
    err.print(f"[bold red]error[/] [bold]{error.code}[/]: {escape(error.message)}", soft_wrap=True)
    receipt = getattr(error, "receipt", ())
    if receipt:
        err.print(receipt_table([line.as_json() for line in receipt]))


def show_result(shot: "OneShot", folder: str) -> None:
    finding = shot.finding
    if shot.case.receipt:
        out.print(receipt_table(shot.case.receipt))
    out.print(f"[bold]{OUTCOMES[finding.outcome]}[/]")
    out.print(_measurements(finding.measurements))
    for note in (*finding.notes, *finding.applied):
        out.print(f"note: {escape(note)}", soft_wrap=True)
    seconds = "  ".join(f"{stage} {value:.2f}" for stage, value in finding.seconds.items())
    out.print(f"seconds: {seconds}", soft_wrap=True)
    out.print(f"engine: {finding.engine}, profile: {shot.recipe.profile}")
    out.print(f"written to {escape(folder)}", soft_wrap=True)


def receipt_table(receipt: Sequence[Mapping[str, Any]]) -> Table:
    """One row per series: chosen, or why not."""
    table = Table("series", "kind", "images", "spacing mm", "status", "why", box=None)
    for line in receipt:
        spacing = line["spacing_mm"]
        table.add_row(
            escape(line["key"]),
            escape(line["modality"]),
            str(line["images"]),
            " x ".join(f"{value:.3g}" for value in spacing) if spacing else "",
            f"[green]{line['status']}[/]" if line["status"] == "chosen" else line["status"],
            escape("; ".join(filter(None, (line["code"], line["reason"], *line["notes"])))),
        )
    return table


def models_table(models: "ModelRegistry") -> Table:
    table = Table("model", "version", "for", "profiles", "sha256", box=None)
    for folder in models.all():
        spec = folder.spec
        is_default = spec.id == models.default_model
        profiles = [f"{name}*" if name == spec.default_profile else name for name in spec.profiles]
        table.add_row(
            f"{spec.id} (default)" if is_default else spec.id,
            spec.version,
            ", ".join(spec.modalities),
            ", ".join(profiles),
            folder.sha256[:12],
        )
    return table


def _measurements(found: Mapping[str, Any]) -> Table:
    table = Table(box=None, show_header=False)
    table.add_row("liver", f"{found['liver_ml']:.0f} ml")
    burden = found["tumour_burden_percent"]
    table.add_row("tumour", f"{found['tumour_ml']:.1f} ml ({burden:.1f} % of the liver)")
    for lesion in found["lesions"][:LESIONS_SHOWN]:
        table.add_row(
            f"lesion {lesion['number']}",
            f"{lesion['volume_ml']:.2f} ml, {lesion['long_axis_mm']:.1f} mm",
        )
    if (more := len(found["lesions"]) - LESIONS_SHOWN) > 0:
        table.add_row("", f"and {more} smaller ones; measurements.json has them all")
    return table
