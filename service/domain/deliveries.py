"""The results of one job on their way to one destination."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any


class DeliveryState(StrEnum):
    """``delivered`` only after the destination was asked and has the objects."""

    PENDING = "pending"
    SENDING = "sending"
    DELIVERED = "delivered"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def finished(self) -> bool:
        return self in (DeliveryState.DELIVERED, DeliveryState.FAILED, DeliveryState.CANCELLED)


@dataclass(frozen=True)
class Delivery:
    """``sent``: one mapping per form of the results, such as ``seg``; see ``deliver``. ``notes``:
    what was sent instead of what the profile asks for, and why. ``code``: of the last failed
    attempt. ``next_at``: when it is tried next; ``give_up_at``: when it fails for good.

    ``committed``: what the destination reported about the storage commitment of what was sent last
    (``None``: nothing yet, or nothing was asked).
    """

    id: str
    job_id: str
    destination: str
    state: DeliveryState
    attempts: int
    created_at: datetime
    updated_at: datetime
    give_up_at: datetime
    next_at: datetime | None = None
    delivered_at: datetime | None = None
    sent: tuple[Mapping[str, Any], ...] = ()
    notes: tuple[str, ...] = ()
    code: str | None = None
    committed: bool | None = None


class BreakerState(StrEnum):
    """``open``: nothing is sent for a while. ``half_open``: one probe may go."""

    CLOSED = "closed"
    HALF_OPEN = "half_open"
    OPEN = "open"
