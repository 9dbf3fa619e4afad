"""A delivery may have several open transactions of storage commitment."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

UNIQUE = "uq_deliveries_transaction_uid"
CARRY = """
    INSERT INTO commitments (transaction_uid, delivery_id)
    SELECT transaction_uid, id FROM deliveries
    WHERE transaction_uid IS NOT NULL AND state IN ('pending', 'sending')
"""
CARRY_BACK = """
    UPDATE deliveries SET transaction_uid = (
        SELECT max(transaction_uid) FROM commitments WHERE delivery_id = deliveries.id
    )
"""


def upgrade() -> None:
    op.create_table(
        "commitments",
        sa.Column("transaction_uid", sa.String(length=64), nullable=False),
        sa.Column("delivery_id", sa.String(length=36), nullable=False),
        sa.PrimaryKeyConstraint("transaction_uid", name=op.f("pk_commitments")),
    )
    op.create_index(op.f("ix_commitments_delivery_id"), "commitments", ["delivery_id"])
    op.execute(CARRY)
    with op.batch_alter_table("deliveries") as deliveries:
        deliveries.drop_constraint(op.f(UNIQUE), type_="unique")
        deliveries.drop_column("transaction_uid")


def downgrade() -> None:
    """Of several transactions one is kept: each was asked for the same objects."""
    with op.batch_alter_table("deliveries") as deliveries:
        deliveries.add_column(sa.Column("transaction_uid", sa.String(length=64), nullable=True))
        deliveries.create_unique_constraint(op.f(UNIQUE), ["transaction_uid"])
    op.execute(CARRY_BACK)
    op.drop_table("commitments")
