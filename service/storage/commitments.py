"""Transactions of storage commitment (PS3.4 J) that were asked for what was sent last.

Every function is part of its caller's transaction. A row lives while what it was asked for is what
the destination has: until the objects are sent again or the delivery ends.
"""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Select, delete, select
from sqlalchemy.orm import Session

from .moves import now
from .tables import CommitmentRow, DeliveryRow


def begin(session: Session, delivery_id: str, transaction_uid: str) -> None:
    """The caller has changed the delivery's row in this transaction, and so holds it."""
    session.add(CommitmentRow(transaction_uid=transaction_uid, delivery_id=delivery_id))


def forget(session: Session, deliveries: Sequence[str] | Select[Any]) -> None:
    """What is reported of these deliveries from now on counts no more. The caller has changed
    their rows in this transaction."""
    session.execute(delete(CommitmentRow).where(CommitmentRow.delivery_id.in_(deliveries)))


def report(session: Session, transaction_uid: str, *, committed: bool) -> bool:
    """Write down what a destination says, which makes the delivery due; ``False`` when it was not
    asked, or not for what was sent last. No failure undoes a promise: it is of an earlier look at
    the same objects."""
    asked = select(CommitmentRow.delivery_id).where(
        CommitmentRow.transaction_uid == transaction_uid
    )
    held = select(DeliveryRow).where(DeliveryRow.id.in_(asked)).with_for_update()
    row = session.scalar(held)
    if row is None or session.scalar(asked) is None:  # forgotten while this waited for the row
        return False
    if not row.committed:
        row.committed, row.updated_at, row.next_at = committed, now(), now()
    return True
