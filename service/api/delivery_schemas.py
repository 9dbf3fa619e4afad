"""Deliveries as clients see them."""

from datetime import datetime
from typing import Literal

from pydantic import Field

from ..domain import Delivery as DeliveryRecord
from ..domain import DeliveryState
from .schemas import Schema


class SentForm(Schema):
    """One form of the results, such as `seg`. `instead_of`: what the destination's profile asks for
    first, where this is a substitute. `confirmed_by`: how the destination was asked for it."""

    form: str
    state: Literal["stored", "confirmed", "refused"]
    objects: int
    instead_of: str | None
    confirmed_by: str | None


class Delivery(Schema):
    """The results of a segmentation on their way to one destination. `delivered` only after the
    destination was asked and has them. `code`: why the last attempt failed."""

    id: str
    segmentation: str
    destination: str
    state: DeliveryState
    attempts: int
    code: str | None
    notes: list[str]
    sent: list[SentForm]
    created_at: datetime
    updated_at: datetime
    next_at: datetime | None = Field(None, description="When it is tried next.")
    give_up_at: datetime = Field(description="When it fails for good.")
    delivered_at: datetime | None = None


class DeliveryList(Schema):
    items: list[Delivery]


def delivery(found: DeliveryRecord) -> Delivery:
    """The resource of a delivery. The UIDs of its objects stay inside."""
    return Delivery(
        id=found.id,
        segmentation=found.job_id,
        destination=found.destination,
        state=found.state,
        attempts=found.attempts,
        code=found.code,
        notes=list(found.notes),
        sent=[SentForm.model_validate(item) for item in found.sent],
        created_at=found.created_at,
        updated_at=found.updated_at,
        next_at=found.next_at,
        give_up_at=found.give_up_at,
        delivered_at=found.delivered_at,
    )
