"""What all commands share: the application, settings, and errors as exit codes."""

# ruff: noqa: PLC0415

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from pydantic import ValidationError

    from ..settings import Settings
    from ..storage.database import Database

BAD_INPUT, FAILURE = 2, 1

app = typer.Typer(
    name="aqcf",
    help="Liver and liver-tumour segmentation of CT and MR series. Research use only.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

StateOption = Annotated[
    Path | None,
    typer.Option("--state", help="Folder of ledger and results (AQCF_STATE_DIR; ./state)."),
]


def settings_of(**changes: object) -> "Settings":
    """From the environment, with what the command line says on top."""
    from ..settings import Settings

    given: dict[str, Any] = {name: value for name, value in changes.items() if value is not None}
    return Settings(**given)


@contextmanager
def told_errors() -> Iterator[None]:
    """Exit codes for the errors that are ours; others keep their traceback."""
    from pydantic import ValidationError

    from model.errors import AqcfError, InputError

    try:
        yield
    except AqcfError as error:
        from ..console import show_error

        show_error(error)
        raise typer.Exit(BAD_INPUT if isinstance(error, InputError) else FAILURE) from error
    except ValidationError as error:
        typer.echo(f"error invalid_config: check {_wrong(error)}", err=True)
        raise typer.Exit(FAILURE) from error


def _wrong(error: "ValidationError") -> str:
    """The variables that are wrong, or how several of them have to fit; never their values."""
    return ", ".join(
        "AQCF_" + str(part["loc"][0]).upper() if part["loc"] else part["msg"].split(", ", 1)[-1]
        for part in error.errors()
    )


@contextmanager
def opened_ledger(settings: "Settings") -> "Iterator[Database]":
    """The ledger, with the tables of this version. Raises ``LedgerUnavailableError``."""
    from ..errors import LedgerUnavailableError
    from ..storage.database import UNREACHABLE, open_database

    database = open_database(settings.ledger_url)
    try:
        database.upgrade()
        yield database
    except UNREACHABLE as error:
        raise LedgerUnavailableError(
            "the ledger cannot be opened; check AQCF_DATABASE_URL or the state folder, and that "
            "the database server runs"
        ) from error
    finally:
        database.close()
