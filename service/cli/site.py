"""``aqcf site check`` and ``aqcf rules test``."""

# ruff: noqa: PLC0415

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from .common import BAD_INPUT, FAILURE, app, settings_of, told_errors

if TYPE_CHECKING:
    from ..rehearse import Rehearsed
    from ..settings import Settings
    from ..site import Choice, Site

site_app = typer.Typer(help="The site file: nodes, destinations, rules.", no_args_is_help=True)
rules_app = typer.Typer(help="The rules of the site file.", no_args_is_help=True)
app.add_typer(site_app, name="site")
app.add_typer(rules_app, name="rules")


@site_app.command("check")
def site_check(
    file: Annotated[Path, typer.Argument(help="The site file.")],
    *,
    connect: Annotated[bool, typer.Option(help="Ask the nodes too.")] = False,
) -> None:
    """Read a site file and check what it names: secrets, models and, with --connect, nodes.

    Exits with 0 when all is well, 2 for a file that cannot be used (what is wrong is on stderr),
    1 when something that it names is not there.
    """
    with _site(file) as (settings, site):
        from ..sitecheck import examine_site

        nodes, destinations, rules = len(site.nodes), len(site.destinations), len(site.rules)
        typer.echo(f"{nodes} nodes, {destinations} destinations, {rules} rules")
        missing = False
        for check in examine_site(settings, site, connect=connect):
            missing |= not check.ok
            typer.echo(f"{'OK' if check.ok else 'FAIL':<5}{check.name:<40} {check.detail}")
        if missing:
            raise typer.Exit(FAILURE)


@rules_app.command("test")
def rules_test(
    *,
    study: Annotated[
        list[Path] | None, typer.Option(help="A folder, files or a .zip of DICOM.", exists=True)
    ] = None,
    node: Annotated[str | None, typer.Option(help="A node of the site file.")] = None,
    date: Annotated[
        str | None, typer.Option(help="Studies of this day of the node: YYYYMMDD, or -YYYYMMDD.")
    ] = None,
    modality: Annotated[str | None, typer.Option(help="With --date: CT or MR only.")] = None,
    study_uid: Annotated[str | None, typer.Option(help="This study of the node.")] = None,
    site: Annotated[Path | None, typer.Option(help="The site file (AQCF_SITE_FILE).")] = None,
    ae_title: Annotated[str, typer.Option(help="As if this AE had sent them.")] = "",
    origin: Annotated[
        Literal["api", "dimse", "stow", "pull"], typer.Option(help="As if they came so.")
    ] = "dimse",
    as_json: Annotated[bool, typer.Option("--json", help="JSON instead of tables.")] = False,
    show_uids: Annotated[bool, typer.Option(help="UIDs instead of short hashes.")] = False,
) -> None:
    """Show what every rule would do with series, and why, without doing it.

    Give --study, or --node with --date or --study-uid; no pixels are fetched from a node.
    Exits with 0, 2 for input that cannot be used, 1 when the node does not answer.
    """
    with _site(site) as (settings, read):
        from .. import rehearse
        from ..domain import Origin

        sender = rehearse.Sender(Origin(origin), ae_title)
        if study and not node:
            found = rehearse.of_files(settings, read, study, sender)
        elif node and date and not (study or study_uid):
            found = rehearse.of_days(settings, read, node, date, sender, modality)
        elif node and study_uid and not (study or date):
            found = rehearse.of_study(settings, read, node, study_uid, sender)
        else:
            raise typer.BadParameter("give --study, or --node with --date or with --study-uid")
        if as_json:
            typer.echo(json.dumps(rehearse.as_json(read, found, show_uids=show_uids), indent=2))
        else:
            _show(read, found, show_uids=show_uids)


@contextmanager
def _site(file: Path | None) -> "Iterator[tuple[Settings, Site]]":
    """The settings and the site that the command is about; a bad file is bad input."""
    with told_errors():
        from .. import console
        from ..dicom.quiet import quiet
        from ..site import SiteError, load_site

        settings = settings_of(site_file=file)
        if settings.site_file is None:
            raise typer.BadParameter("there is no site file: give --site, or set AQCF_SITE_FILE")
        try:
            site = load_site(settings.site_file)
        except SiteError as error:
            console.show_error(error)
            raise typer.Exit(BAD_INPUT) from error
        with quiet(), _silent_logs():
            yield settings, site


@contextmanager
def _silent_logs() -> Iterator[None]:
    """DICOM libraries quote header values."""
    import logging

    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)


def _show(site: "Site", studies: "Sequence[Rehearsed]", *, show_uids: bool) -> None:
    from rich.markup import escape
    from rich.table import Table

    from .. import console, rehearse

    def shown(uid: str) -> str:
        return escape(uid if show_uids else rehearse.shortened(uid))

    for study in studies:
        table = Table("series", "what it is", "rule", "would", title_justify="left", box=None)
        table.title = f"study {shown(study.study_uid)}"
        for choice in study.choices:
            for cells in _rows(choice, shown(choice.key)):
                table.add_row(*cells)
        console.out.print(table)
    table = Table("rule", "series", "segmented", "studies", box=None, title_justify="left")
    table.title = f"{len(studies)} studies"
    for line in rehearse.summary(site, studies):
        table.add_row(line.rule, str(line.series), str(line.segmented), str(line.studies))
    console.out.print(table)


def _rows(choice: "Choice", shown: str) -> Iterator[tuple[Any, ...]]:
    """A row for each rule, the one that decides marked, and one for the outcome."""
    from rich.markup import escape

    first = (shown, escape(_described(choice)))
    for one in choice.decision.considered:
        decides = one.rule == choice.decision.rule
        name, says = escape(one.rule), escape(one.reason)
        yield (
            *first,
            f"[bold]{name}[/]" if decides else name,
            says if one.matched else f"[dim]no: {says}[/]",
        )
        first = ("", "")
    outcome = "[green]segmented[/]" if choice.chosen else "set aside"
    yield (*first, "[bold]=>[/]", f"{outcome}: {escape(choice.why)}")


def _described(choice: "Choice") -> str:
    facts = choice.facts
    thickness = "" if facts.thickness_mm is None else f"{facts.thickness_mm:g} mm"
    parts = (facts.modality, f"{facts.images} images", thickness, facts.orientation or "")
    words = (facts.body_part, facts.description)
    return ", ".join(part for part in (*parts, *words) if part)
