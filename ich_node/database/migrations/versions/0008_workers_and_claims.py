"""Workers note themselves; series are found by a few steps, however many there are; one form of a condition for all"""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    _create_worker()
    op.create_index("series_by_conclusion", "series", ["concluded_at"])
    opened = sa.text("(state IN ('RECEIVING', 'COMPLETE')) IS TRUE")
    in_order: list[Any] = ["old", sa.text("priority DESC"), "first_received_at"]
    op.create_index("series_to_claim", "series", in_order, sqlite_where=opened, postgresql_where=opened)
    undecided = sa.text("early_series_id IS NOT NULL AND NOT early_decided AND revision = 0")
    op.drop_index("study_early", "study")
    op.create_index("study_early", "study", ["early_series_id"], sqlite_where=undecided, postgresql_where=undecided)


def _create_worker() -> None:
    op.create_table(
        "worker",
        sa.Column("owner", sa.String(length=128), nullable=False),
        sa.Column("seen_at", sa.Double(), nullable=False),
        sa.Column("engine", sa.String(length=16), nullable=False),
        sa.Column("device", sa.String(length=128), nullable=False),
        sa.Column("memory_used", sa.BigInteger(), nullable=False),
        sa.Column("memory_total", sa.BigInteger(), nullable=False),
        sa.Column("model_name", sa.String(length=128), nullable=False),
        sa.Column("model_version", sa.String(length=64), nullable=False),
        sa.Column("model_sha256", sa.String(length=64), nullable=False),
        sa.PrimaryKeyConstraint("owner"),
    )
