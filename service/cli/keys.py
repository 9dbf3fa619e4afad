"""``aqcf keys``."""

# ruff: noqa: PLC0415

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from .common import StateOption, app, opened_ledger, settings_of, told_errors

keys_app = typer.Typer(help="API keys, needed on any address but loopback.", no_args_is_help=True)
app.add_typer(keys_app, name="keys")


@keys_app.command("create")
def keys_create(
    scope: Annotated[
        list[str] | None, typer.Option(help="read, write or admin; may be given several times.")
    ] = None,
    name: Annotated[
        str, typer.Option(help="What it is for, such as the system that uses it.")
    ] = "",
    state: StateOption = None,
) -> None:
    """Make an API key and print it once; only its hash is kept."""
    with _keys(state) as keys:
        key, text = keys.create(scope or ("read", "write"), name)
        typer.echo(f"key {key.id}, scopes {', '.join(sorted(key.scopes))}", err=True)
        typer.echo(text)


@keys_app.command("list")
def keys_list(state: StateOption = None) -> None:
    """List the API keys."""
    with _keys(state) as keys:
        for key in keys.all():
            word = "revoked" if key.revoked_at else "active"
            made = f"{key.created_at:%Y-%m-%d}"
            scopes = ", ".join(sorted(key.scopes))
            typer.echo(f"{key.id}  {word:<8} {made}  {scopes:<18} {key.name}".rstrip())


@keys_app.command("revoke")
def keys_revoke(key_id: str, state: StateOption = None) -> None:
    """Make an API key useless."""
    with _keys(state) as keys:
        keys.revoke(key_id)


@contextmanager
def _keys(state: Path | None) -> Iterator[Any]:
    with told_errors():
        from ..storage.keys import KeyStore

        with opened_ledger(settings_of(state_dir=state)) as database:
            yield KeyStore(database)
