"""``aqcf audit``."""

# ruff: noqa: PLC0415

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from .common import StateOption, app, opened_ledger, settings_of, told_errors

if TYPE_CHECKING:
    from ..audit import AuditEntry, AuditFilter
    from ..settings import Settings

COLUMNS = ("at", "actor", "action", "job")
FORMULA = ("=", "+", "-", "@")
FORMATS = ["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S"]

audit_app = typer.Typer(help="Who did what, and when.", no_args_is_help=True)
app.add_typer(audit_app, name="audit")


@audit_app.callback()
def audit() -> None:
    """Who did what, and when."""


@audit_app.command("export")
def audit_export(
    *,
    since: Annotated[
        datetime | None, typer.Option(formats=FORMATS, help="From here on, in UTC.")
    ] = None,
    until: Annotated[
        datetime | None, typer.Option(formats=FORMATS, help="Up to here, not included, in UTC.")
    ] = None,
    job: Annotated[str | None, typer.Option(help="Only of this job.")] = None,
    form: Annotated[Literal["csv", "jsonl"], typer.Option("--format")] = "csv",
    state: StateOption = None,
) -> None:
    """Write the audit to stdout, oldest first. The export itself is a row of it."""
    with told_errors():
        from ..audit import AuditFilter

        wanted = AuditFilter(_utc(since), _utc(until), job)
        _write(settings_of(state_dir=state), wanted, form)


def _write(settings: "Settings", wanted: "AuditFilter", form: str) -> None:
    from ..audit import AuditLog

    with opened_ledger(settings) as database:
        log = AuditLog(database)
        log.record("cli", "audit_export", wanted.job_id)
        if form == "csv":
            typer.echo(",".join(COLUMNS))
        for entry in log.export(wanted):
            typer.echo(_csv(entry) if form == "csv" else _json(entry))


def _csv(entry: "AuditEntry") -> str:
    """Quoted, and what a spreadsheet would take for a formula (an AE title may begin with ``=``)
    after an apostrophe."""
    values = (entry.at.isoformat(), entry.actor, entry.action, entry.job_id or "")
    safe = (f"'{value}" if value.startswith(FORMULA) else value for value in values)
    return ",".join('"' + value.replace('"', '""') + '"' for value in safe)


def _json(entry: "AuditEntry") -> str:
    import json

    values = (entry.at.isoformat(), entry.actor, entry.action, entry.job_id)
    return json.dumps(dict(zip(COLUMNS, values, strict=True)))


def _utc(moment: datetime | None) -> datetime | None:
    return None if moment is None else moment.replace(tzinfo=UTC)
