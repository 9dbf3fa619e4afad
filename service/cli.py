"""The command ``aqcf``. Commands import what they need when they run: ``--help`` stays quick."""

# ruff: noqa: PLC0415

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

if TYPE_CHECKING:
    from .settings import Settings

BAD_INPUT, FAILURE = 2, 1

app = typer.Typer(
    name="aqcf",
    help="Liver and liver-tumour segmentation of CT and MR series. Research use only.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
keys_app = typer.Typer(help="API keys, needed on any address but loopback.", no_args_is_help=True)
app.add_typer(keys_app, name="keys")

StateOption = Annotated[
    Path | None,
    typer.Option("--state", help="Folder of ledger and results (AQCF_STATE_DIR; ./state)."),
]


@app.command()
def segment(
    inputs: Annotated[
        list[Path],
        typer.Argument(
            metavar="INPUT…",
            help="A folder or files of DICOM, one .zip of them, or one .nii or .nii.gz.",
            exists=True,
        ),
    ],
    modality: Annotated[Literal["ct", "mr"], typer.Option(help="What the images are.")],
    out: Annotated[Path, typer.Option(help="Folder for the results.", file_okay=False)],
    *,
    model: Annotated[str | None, typer.Option(help="Model id; see `aqcf models`.")] = None,
    profile: Annotated[
        str | None, typer.Option(help="fast, balanced or paper; the model's default.")
    ] = None,
    engine: Annotated[
        Literal["auto", "openvino", "onnxruntime", "torch"] | None,
        typer.Option(help="Inference engine (AQCF_ENGINE; auto)."),
    ] = None,
    series: Annotated[
        str, typer.Option(help="Key of a series from the receipt, or auto.")
    ] = "auto",
) -> None:
    """Segment one series.

    Writes mask.nii.gz, measurements.json and preview.png, and seg.dcm and sr.dcm for DICOM input.
    Exits with 0 when done, 2 for input that cannot be used (its code is on stderr), 1 on failure.
    """
    with _errors():
        from . import console
        from .domain import SubmitOptions
        from .oneshot import segment_into
        from .uploads import Upload
        from .wiring import BackendCache

        settings = _settings(engine=engine)
        options = SubmitOptions(modality, model, profile, series)
        backends = BackendCache(settings.engine, settings.threads)
        with _quiet_libraries(), console.progress_bar() as report:
            upload = Upload(tuple(inputs))
            shot = segment_into(
                settings, upload, options, out=out, open_backend=backends, report=report
            )
        console.show_result(shot, str(out))


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
    with _errors():
        from .server import serve as run_server

        settings = _settings(host=host, port=port, state_dir=state)
        run_server(settings, lambda url: typer.echo(f"listening on {url}", err=True))


@app.command()
def models() -> None:
    """List the installed models (AQCF_MODELS_DIR)."""
    with _errors():
        from . import console
        from .registry import ModelRegistry

        settings = _settings()
        registry = ModelRegistry(settings.models_dir, settings.default_model)
        if registry.all():
            console.out.print(console.models_table(registry))
        else:
            console.out.print("no model is installed")
        for broken in registry.broken():
            console.err.print(f"unusable: {broken.error}", markup=False)
        if all(folder.spec.id != settings.default_model for folder in registry.all()):
            console.err.print(
                f"the default model {settings.default_model!r} is not installed in "
                f"{settings.models_dir}; set AQCF_MODELS_DIR or AQCF_DEFAULT_MODEL",
                markup=False,
                soft_wrap=True,
            )
            raise typer.Exit(FAILURE)


@app.command()
def doctor(state: StateOption = None) -> None:
    """Check what runs here: engines, GPU, codecs, model hashes, disk. Exits with 1 when something
    that is needed is missing."""
    with _errors():
        from .doctor import examine_machine

        missing = False
        for check in examine_machine(_settings(state_dir=state)):
            word = "OK" if check.ok else "FAIL" if check.needed else "--"
            missing |= check.needed and not check.ok
            typer.echo(f"{word:<5}{check.name:<44} {check.detail}".rstrip())
        if missing:
            raise typer.Exit(FAILURE)


@keys_app.command("create")
def keys_create(
    scope: Annotated[
        list[str] | None, typer.Option(help="read, write or admin; may be given several times.")
    ] = None,
    state: StateOption = None,
) -> None:
    """Make an API key and print it once; only its hash is kept."""
    with _keys(state) as keys:
        key, text = keys.create(scope or ("read", "write"))
        typer.echo(f"key {key.id}, scopes {', '.join(sorted(key.scopes))}", err=True)
        typer.echo(text)


@keys_app.command("list")
def keys_list(state: StateOption = None) -> None:
    """List the API keys."""
    with _keys(state) as keys:
        for key in keys.all():
            word = "revoked" if key.revoked_at else "active"
            made = f"{key.created_at:%Y-%m-%d}"
            typer.echo(f"{key.id}  {word:<8} {made}  {', '.join(sorted(key.scopes))}")


@keys_app.command("revoke")
def keys_revoke(key_id: str, state: StateOption = None) -> None:
    """Make an API key useless."""
    with _keys(state) as keys:
        keys.revoke(key_id)


def main() -> None:
    """Entry point of the ``aqcf`` script."""
    app()


def _settings(**changes: object) -> "Settings":
    """From the environment, with what the command line says on top."""
    from .settings import Settings

    given: dict[str, Any] = {name: value for name, value in changes.items() if value is not None}
    return Settings(**given)


@contextmanager
def _errors() -> Iterator[None]:
    """Exit codes for the errors that are ours; others keep their traceback."""
    from pydantic import ValidationError

    from model.errors import AqcfError, InputError

    try:
        yield
    except AqcfError as error:
        from .console import show_error

        show_error(error)
        raise typer.Exit(BAD_INPUT if isinstance(error, InputError) else FAILURE) from error
    except ValidationError as error:
        names = ", ".join("AQCF_" + str(part["loc"][0]).upper() for part in error.errors())
        typer.echo(f"error invalid_config: check {names}", err=True)
        raise typer.Exit(FAILURE) from error


@contextmanager
def _keys(state: Path | None) -> "Iterator[Any]":
    with _errors():
        from .storage.database import open_database
        from .storage.keys import KeyStore

        settings = _settings(state_dir=state)
        database = open_database(settings.database_url)
        try:
            database.upgrade()
            yield KeyStore(database)
        finally:
            database.close()


@contextmanager
def _quiet_libraries() -> Iterator[None]:
    """DICOM libraries warn by quoting header values: keep them off the terminal."""
    import logging
    import warnings

    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(logging.NOTSET)
