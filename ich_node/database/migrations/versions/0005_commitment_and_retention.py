"""Storage commitment, legal hold, and what was deleted"""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    _extend_deliveries()
    _create_commitments()
    _create_retention()


def _extend_deliveries() -> None:
    op.add_column("delivery", sa.Column("commitment_ask_at", sa.Double(), nullable=True))
    op.add_column("delivery", sa.Column("commitment_asks", sa.Integer(), nullable=False, server_default="0"))
    op.add_column("delivery", sa.Column("commitment_failures", sa.Integer(), nullable=False, server_default="0"))
    op.add_column("delivery", sa.Column("commitment_error", sa.Text(), nullable=True))
    op.add_column("delivery", sa.Column("committed_at", sa.Double(), nullable=True))
    op.drop_index("delivery_by_state", "delivery")
    op.create_index("delivery_by_state", "delivery", ["state", "destination", "next_attempt_at"])
    waits = sa.text("state = 'DELIVERED' AND commitment_ask_at IS NOT NULL")
    op.create_index(
        "delivery_to_commit",
        "delivery",
        ["destination", "commitment_ask_at"],
        sqlite_where=waits,
        postgresql_where=waits,
    )


def _create_commitments() -> None:
    op.create_table(
        "commitment",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("transaction_uid", sa.String(length=64), nullable=False),
        sa.Column("destination", sa.String(length=64), nullable=False),
        sa.Column("ae_title", sa.String(length=16), nullable=False),
        sa.Column("asked_at", sa.Double(), nullable=False),
        sa.Column("acknowledged_at", sa.Double(), nullable=True),
        sa.Column("answered_at", sa.Double(), nullable=True),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("transaction_uid"),
    )
    op.create_table(
        "commitment_item",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("commitment_id", sa.Integer(), nullable=False),
        sa.Column("delivery_id", sa.Integer(), nullable=False),
        sa.Column("sop_class_uid", sa.String(length=64), nullable=False),
        sa.Column("sop_instance_uid", sa.String(length=64), nullable=False),
        sa.Column("sent_again", sa.Boolean(), nullable=False),
        sa.ForeignKeyConstraint(["commitment_id"], ["commitment.id"]),
        sa.ForeignKeyConstraint(["delivery_id"], ["delivery.id"]),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("commitment_id", "sop_instance_uid"),
    )
    op.create_index("commitment_item_by_delivery", "commitment_item", ["delivery_id"])
    op.create_table(
        "commitment_report",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("commitment_id", sa.Integer(), nullable=False),
        sa.Column("address", sa.String(length=64), nullable=False),
        sa.Column("received_at", sa.Double(), nullable=False),
        sa.Column("committed", sa.JSON(), nullable=False),
        sa.Column("failed", sa.JSON(), nullable=False),
        sa.Column("settled_at", sa.Double(), nullable=True),
        sa.ForeignKeyConstraint(["commitment_id"], ["commitment.id"]),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("commitment_report_by_commitment", "commitment_report", ["commitment_id"])
    unsettled = sa.text("settled_at IS NULL")
    op.create_index(
        "commitment_report_unsettled", "commitment_report", ["id"], sqlite_where=unsettled, postgresql_where=unsettled
    )


def _create_retention() -> None:
    op.create_table(
        "legal_hold",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("study_id", sa.Integer(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("placed_by", sa.String(length=64), nullable=False),
        sa.Column("placed_at", sa.Double(), nullable=False),
        sa.Column("lifted_by", sa.String(length=64), nullable=True),
        sa.Column("lifted_at", sa.Double(), nullable=True),
        sa.ForeignKeyConstraint(["study_id"], ["study.id"]),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("legal_hold_by_study", "legal_hold", ["study_id"])
    op.create_table(
        "deletion",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("study_id", sa.Integer(), nullable=False),
        sa.Column("what", sa.String(length=16), nullable=False),
        sa.Column("files", sa.Integer(), nullable=False),
        sa.Column("size_bytes", sa.Integer().with_variant(sa.BigInteger(), "postgresql"), nullable=False),
        sa.Column("rule", sa.String(length=64), nullable=False),
        sa.Column("deleted_at", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(["study_id"], ["study.id"]),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("deletion_by_study", "deletion", ["study_id"])
    op.create_table(
        "file_to_delete",
        sa.Column("path", sa.String(length=255), nullable=False),
        sa.PrimaryKeyConstraint("path"),
    )
