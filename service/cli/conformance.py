"""``aqcf conformance``."""

# ruff: noqa: PLC0415

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from .common import app, settings_of, told_errors

if TYPE_CHECKING:
    from ..conformance import Statement


@app.command()
def conformance(
    *,
    out: Annotated[Path | None, typer.Option(help="Write it here instead of on stdout.")] = None,
    form: Annotated[Literal["md", "json"], typer.Option("--format")] = "md",
    with_site: Annotated[
        bool, typer.Option("--with-site", help="Names and addresses of the site's systems too.")
    ] = False,
) -> None:
    """Write the DICOM conformance statement of this configuration (PS3.2).

    It is made from the settings, the site file (AQCF_SITE_FILE) and what is accepted and proposed.
    """
    with told_errors():
        from ..conformance import collect
        from ..site import load_site

        settings = settings_of()
        statement = collect(settings, load_site(settings.site_file), addresses=with_site)
        text = _text(statement, form)
        if out is None:
            typer.echo(text, nl=False)
        else:
            out.write_text(text, encoding="utf-8")


def _text(statement: "Statement", form: str) -> str:
    from ..conformance import as_markdown

    if form == "md":
        return as_markdown(statement)
    return json.dumps(asdict(statement), indent=2, ensure_ascii=False) + "\n"
