"""The processes: ``aqcf serve``, which is all of them in one."""

# ruff: noqa: PLC0415

from typing import Annotated

import typer

from .common import StateOption, app, settings_of, told_errors


@app.command()
def serve(
    host: Annotated[str | None, typer.Option(help="Address (AQCF_HOST; 127.0.0.1).")] = None,
    port: Annotated[int | None, typer.Option(help="Port (AQCF_PORT; 8080).")] = None,
    state: StateOption = None,
) -> None:
    """Run the whole service in this process: API, page, worker and sweep.

    Killed at any moment and started again with the same state folder, it finishes every job that
    it accepted.
    """
    with told_errors():
        from ..server import serve as run_server

        settings = settings_of(host=host, port=port, state_dir=state)
        run_server(settings, lambda url: typer.echo(f"listening on {url}", err=True))
