"""The processes: ``aqcf serve``, which is all of them in one, and each on its own."""

# ruff: noqa: PLC0415

from typing import Annotated

import typer

from .common import StateOption, app, settings_of, told_errors


@app.command()
def serve(
    host: Annotated[str | None, typer.Option(help="Address (AQCF_HOST; 127.0.0.1).")] = None,
    port: Annotated[int | None, typer.Option(help="Port (AQCF_PORT; 8080).")] = None,
    listen: Annotated[
        bool | None,
        typer.Option("--listen/--no-listen", help="The DICOM listener too (AQCF_LISTEN)."),
    ] = None,
    state: StateOption = None,
) -> None:
    """Run the whole service in this process: API, page, worker and sweep.

    Killed at any moment and started again with the same state folder, it finishes every job that
    it accepted.
    """
    with told_errors():
        from ..server import serve as run_server

        settings = settings_of(host=host, port=port, listen=listen, state_dir=state)
        run_server(settings, lambda url: typer.echo(f"listening on {url}", err=True))


@app.command()
def gateway(
    host: Annotated[str | None, typer.Option(help="Address (AQCF_HOST; 127.0.0.1).")] = None,
    port: Annotated[int | None, typer.Option(help="Port (AQCF_PORT; 8080).")] = None,
    state: StateOption = None,
) -> None:
    """Run the API and the page; `aqcf worker` does the jobs (AQCF_REDIS_URL, AQCF_DATABASE_URL)."""
    with told_errors():
        from ..gateway import serve as run_gateway

        settings = settings_of(host=host, port=port, state_dir=state)
        run_gateway(settings, lambda url: typer.echo(f"listening on {url}", err=True))


@app.command()
def worker(state: StateOption = None) -> None:
    """Do the jobs that gateways and listeners accept (AQCF_REDIS_URL, AQCF_DATABASE_URL).

    Told to stop, it puts what it was doing back into the queue. Killed, another worker takes over.
    """
    with told_errors():
        from ..worker import serve as run_worker

        settings = settings_of(state_dir=state)
        code = run_worker(settings, lambda name: typer.echo(f"ready as {name}", err=True))
        raise typer.Exit(code)


@app.command()
def listen(
    host: Annotated[str | None, typer.Option(help="Address (AQCF_LISTEN_HOST; 127.0.0.1).")] = None,
    port: Annotated[int | None, typer.Option(help="Port (AQCF_LISTEN_PORT; 11112).")] = None,
    state: StateOption = None,
) -> None:
    """Take series in by C-STORE; the site's rules say what is done with them (AQCF_SITE_FILE).

    An instance that was answered with success survives a kill. Uses AQCF_REDIS_URL and
    AQCF_DATABASE_URL, as the gateway and the workers do.
    """
    with told_errors():
        from ..listener import serve as run_listener

        settings = settings_of(listen_host=host, listen_port=port, state_dir=state)
        run_listener(settings, lambda where: typer.echo(f"listening as {where}", err=True))
