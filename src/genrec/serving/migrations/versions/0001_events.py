"""Create the tables of events and idempotency keys."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    op.create_table(
        "events",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True),
        sa.Column("user_id", sa.String(256), nullable=False),
        sa.Column("item_id", sa.Text, nullable=False),
        sa.Column("timestamp", sa.Double, nullable=False),
        sa.Column("received_at", sa.Double, nullable=False),
        sa.Column("kind", sa.String(64), nullable=False),
        sa.Column("rating", sa.Double),
        sa.Column("event_id", sa.String(256)),
        sa.UniqueConstraint("user_id", "event_id"),
    )
    op.create_index("events_by_user", "events", ["user_id", "timestamp", "id"])
    op.create_table(
        "idempotency_keys",
        sa.Column("user_id", sa.String(256), primary_key=True),
        sa.Column("key", sa.String(256), primary_key=True),
        sa.Column("body", sa.String(64), nullable=False),
        sa.Column("accepted", sa.Integer, nullable=False),
        sa.Column("duplicates", sa.Integer, nullable=False),
        sa.Column("received_at", sa.Double, nullable=False),
    )
    op.create_index("idempotency_keys_by_time", "idempotency_keys", ["received_at"])


def downgrade() -> None:
    op.drop_table("idempotency_keys")
    op.drop_table("events")
