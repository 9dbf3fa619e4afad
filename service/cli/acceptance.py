"""``aqcf acceptance``."""

# ruff: noqa: PLC0415

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from .common import BAD_INPUT, FAILURE, StateOption, app, settings_of, told_errors

if TYPE_CHECKING:
    from ..acceptance import Report
    from ..container import Container
    from ..settings import Settings


@app.command()
def acceptance(
    *,
    node: Annotated[str, typer.Option(help="The archive, by its name in the site file.")],
    site: Annotated[Path | None, typer.Option(help="The site file (AQCF_SITE_FILE).")] = None,
    through: Annotated[
        Literal["pacs", "forward", "listener"],
        typer.Option(
            help="pacs: send to the archive, the service fetches. forward: send to the archive, "
            "which sends on by its own rule. listener: send to the service."
        ),
    ] = "pacs",
    destination: Annotated[
        str | None, typer.Option(help="By which results reach the node, if by several.")
    ] = None,
    only: Annotated[str, typer.Option(help="These phantoms only, by commas.")] = "",
    listener: Annotated[
        str | None,
        typer.Option(help="HOST:PORT, or a node of the site file (127.0.0.1:AQCF_LISTEN_PORT)."),
    ] = None,
    calling: Annotated[
        str | None, typer.Option(help="Our AE title towards the listener (the first caller).")
    ] = None,
    timeout: Annotated[float, typer.Option(help="Seconds for all results.", min=1.0)] = 900.0,
    out: Annotated[
        Path | None, typer.Option(help="Folder of the reports (acceptance in the state folder).")
    ] = None,
    clean: Annotated[
        bool, typer.Option("--clean", help="Delete the phantoms from the archive afterwards.")
    ] = False,
    state: StateOption = None,
) -> None:
    """Send phantoms through the site's archive and back, and write a dated report.

    The service has to run, and this command needs its settings. Exits with 0 when all phantoms
    passed, 1 when one failed, 2 when the test could not be made (why is on stderr).
    """
    with told_errors(), _untestable():
        from ..acceptance import Plan, accept, write_report

        settings = settings_of(site_file=site, state_dir=state)
        names = tuple(name.strip() for name in only.split(",") if name.strip())
        plan = Plan(node, through, destination, names, listener, calling, timeout, clean)
        with _opened(settings) as container:
            report = accept(container, plan, _teller())
        page, data = write_report(report, out or settings.state_dir / "acceptance")
    _show(report)
    typer.echo(f"report: {page}\n        {data}")
    raise typer.Exit(0 if report.passed else FAILURE)


@contextmanager
def _untestable() -> Iterator[None]:
    """Whatever keeps the test from being made is no failed test."""
    from model.errors import AqcfError

    from ..console import show_error

    try:
        yield
    except AqcfError as error:
        show_error(error)
        raise typer.Exit(BAD_INPUT) from error


@contextmanager
def _opened(settings: "Settings") -> "Iterator[Container]":
    """The ledger and the site of the deployment; nothing of it is run here."""
    import logging

    from .. import wiring
    from ..observability import configure_logging

    if settings.site_file is None:
        raise typer.BadParameter("there is no site file: give --site, or set AQCF_SITE_FILE")
    configure_logging(settings.log_level)
    logging.disable(logging.CRITICAL)  # what happens is said; DICOM libraries quote header values
    try:
        container = wiring.build(settings, role="acceptance")
        try:
            yield container
        finally:
            container.database.close()
            container.tracing.close()
    finally:
        logging.disable(logging.NOTSET)


def _teller() -> Callable[[str], None]:
    started = time.monotonic()

    def say(line: str) -> None:
        typer.echo(f"{time.monotonic() - started:7.1f} s  {line}", err=True)

    return say


def _show(report: "Report") -> None:
    for trial in report.trials:
        typer.echo(f"{trial.verdict:<8} {trial.name:<15} {trial.written.phantom.what}")
        for check in trial.checks:
            if not check.ok:
                typer.echo(f"         {check.name}: {check.found} (expected: {check.expected})")
    for check in report.checks:
        if not check.ok:
            typer.echo(f"FAIL     {check.name}: {check.found}")
    typer.echo("PASS" if report.passed else "FAIL")
    typer.echo(f"in the archive now: {report.remains}")
