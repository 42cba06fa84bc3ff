"""Several series per study, slabs, open associations, versions, rejections and counts"""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    _add("study", sa.Column("withdrawn", sa.Boolean(), nullable=False, server_default=sa.false()),
         sa.Column("old", sa.Boolean(), nullable=False, server_default=sa.false()))  # fmt: skip
    _add("study", sa.Column("doubted", sa.Boolean(), nullable=False, server_default=sa.false()))
    op.create_index("ix_study_doubted", "study", ["doubted"])
    _add("study", sa.Column("priority", sa.Integer(), nullable=False, server_default="0"))
    _add(
        "series",
        sa.Column("concluded_at", sa.Double(), nullable=True),
        sa.Column("fingerprint", sa.String(length=64), nullable=True),
        sa.Column("choice", sa.JSON(), nullable=True),
        sa.Column("longest_pause_s", sa.Double(), nullable=False, server_default="0"),
        sa.Column("planes_waiting", sa.Integer(), nullable=False, server_default="0"),
        sa.Column("priority", sa.Integer(), nullable=False, server_default="0"),
        sa.Column("old", sa.Boolean(), nullable=False, server_default=sa.false()),
        sa.Column("expected_instances", sa.Integer(), nullable=True),
        sa.Column("asked_at", sa.Double(), nullable=True),
        sa.Column("counted_at", sa.Double(), nullable=True),
        sa.Column("released_instance_id", sa.Integer(), nullable=True),
    )
    op.create_index("series_by_uid", "series", ["series_instance_uid"])
    _add("instance", sa.Column("marks", sa.JSON(), nullable=True))
    _add("result", sa.Column("series_instance_uid", sa.String(length=64), nullable=True))
    op.execute("UPDATE series SET concluded_at = closed_at WHERE state = 'CONCLUDED'")
    _make_planes_anew()
    op.create_table(
        "open_association",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("series_id", sa.Integer(), nullable=False),
        sa.Column("association", sa.String(length=64), nullable=False),
        sa.Column("lease_owner", sa.String(length=128), nullable=False),
        sa.Column("lease_expires_at", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(["series_id"], ["series.id"]),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("series_id", "association"),
    )
    op.create_index("open_association_by_owner", "open_association", ["lease_owner"])
    op.create_table(
        "rejection",
        sa.Column("sop_instance_uid", sa.String(length=64), nullable=False),
        sa.Column("reason", sa.String(length=32), nullable=False),
        sa.Column("received_at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("sop_instance_uid"),
    )


def _add(table: str, *columns: sa.Column[Any]) -> None:
    for column in columns:
        op.add_column(table, column)


def _make_planes_anew() -> None:
    """Planes are made again from the images, whose headers are read for more than before."""
    op.execute(
        "UPDATE instance SET state = 'RECEIVED', facts = NULL"
        " WHERE state = 'DECODED' AND path IS NOT NULL AND series_id IN (SELECT id FROM series WHERE state"
        " IN ('RECEIVING', 'COMPLETE', 'CONCLUDED'))"
    )
    op.drop_table("plane")
    op.create_table(
        "plane",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("series_id", sa.Integer(), nullable=False),
        sa.Column("members", sa.JSON(), nullable=False),
        sa.Column("position_mm", sa.Double(), nullable=False),
        sa.Column("tissue", sa.JSON(), nullable=True),
        sa.Column("logits", sa.JSON(), nullable=False),
        sa.Column("embedding", sa.LargeBinary(), nullable=False),
        sa.Column("model_sha256", sa.String(length=64), nullable=False),
        sa.ForeignKeyConstraint(["series_id"], ["series.id"]),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("plane_by_series", "plane", ["series_id"])
