"""``aqcf deliveries``."""

# ruff: noqa: PLC0415

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .common import BAD_INPUT, StateOption, app, opened_ledger, settings_of, told_errors

if TYPE_CHECKING:
    from ..domain import Delivery

deliveries_app = typer.Typer(
    help="Results on their way to the site's destinations.", no_args_is_help=True
)
app.add_typer(deliveries_app, name="deliveries")

StateName = Annotated[
    str | None,
    typer.Option("--only", help="pending, sending, delivered, failed or cancelled."),
]
DestinationName = Annotated[str | None, typer.Option("--destination", help="To this one only.")]


@deliveries_app.command("list")
def deliveries_list(
    only: StateName = None,
    destination: DestinationName = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000)] = 50,
    state: StateOption = None,
) -> None:
    """List deliveries, the newest first."""
    with _deliveries(state) as (deliveries, _):
        for found in deliveries.listed(_state(only), destination, limit=limit):
            typer.echo(_line(found))
            for note in found.notes:
                typer.echo(f"    {note}")


@deliveries_app.command("retry")
def deliveries_retry(
    ids: Annotated[list[str] | None, typer.Argument(help="Deliveries, by id.")] = None,
    destination: DestinationName = None,
    state: StateOption = None,
) -> None:
    """Try deliveries again at once: these, or all failed ones of a destination."""
    with _deliveries(state) as (deliveries, audit):
        for delivery_id in ids or _failed(deliveries, destination):
            found = deliveries.retry(delivery_id)
            audit.record("cli", "retry_delivery", found.job_id)
            typer.echo(f"{delivery_id}  pending")


def _failed(deliveries: Any, destination: str | None) -> list[str]:
    if destination is None:
        typer.echo("name deliveries by id, or give --destination", err=True)
        raise typer.Exit(BAD_INPUT)
    found = deliveries.listed(_state("failed"), destination, limit=10_000)
    return [one.id for one in found]


def _state(word: str | None) -> Any:
    from ..domain import DeliveryState

    if word is None:
        return None
    if word not in list(DeliveryState):
        typer.echo(f"there is no state {word!r}; there are {', '.join(DeliveryState)}", err=True)
        raise typer.Exit(BAD_INPUT)
    return DeliveryState(word)


def _line(found: "Delivery") -> str:
    when = f"{found.updated_at:%Y-%m-%d %H:%M:%S}Z"
    sent = ",".join(item["form"] for item in found.sent if item["state"] != "refused") or "-"
    words = (found.id, f"{found.state:<9}", f"{found.destination:<16}", when)
    return "  ".join((*words, f"tries {found.attempts}", found.code or "-", sent))


@contextmanager
def _deliveries(state: Path | None) -> Iterator[tuple[Any, Any]]:
    """The deliveries and the audit."""
    with told_errors():
        from ..audit import AuditLog
        from ..storage.deliveries import DeliveryStore

        with opened_ledger(settings_of(state_dir=state)) as database:
            yield DeliveryStore(database), AuditLog(database)
