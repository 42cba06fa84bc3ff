"""Alerts and what they ask of a study"""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("study", sa.Column("alerted_revision", sa.Integer(), nullable=False, server_default="0"))
    op.add_column("study", sa.Column("early_series_id", sa.Integer(), nullable=True))
    op.add_column("study", sa.Column("early_finding", sa.JSON(), nullable=True))
    op.add_column("study", sa.Column("early_decided", sa.Boolean(), nullable=False, server_default=sa.false()))
    op.add_column("study", sa.Column("told", sa.String(length=16), nullable=True))
    op.execute("UPDATE study SET alerted_revision = revision")  # what was reported before alerts nobody now
    op.create_index(
        "study_to_alert",
        "study",
        ["id"],
        sqlite_where=sa.text("revision > alerted_revision"),
        postgresql_where=sa.text("revision > alerted_revision"),
    )
    undecided = "early_series_id IS NOT NULL AND {} AND revision = 0"
    op.create_index(
        "study_early", "study", ["early_series_id"],
        sqlite_where=sa.text(undecided.format("early_decided = 0")),
        postgresql_where=sa.text(undecided.format("NOT early_decided")),
    )  # fmt: skip
    told_early = sa.text("told = 'preliminary' AND revision = 0")
    op.create_index("study_told_early", "study", ["id"], sqlite_where=told_early, postgresql_where=told_early)
    op.add_column("series", sa.Column("acquired_at", sa.Double(), nullable=True))
    op.add_column("series", sa.Column("station_name", sa.String(length=64), nullable=False, server_default=""))
    op.create_table(
        "alert",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("identifier", sa.String(length=32), nullable=False),
        sa.Column("study_id", sa.Integer(), nullable=True),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("text", sa.Text(), nullable=True),
        sa.Column("outcome", sa.String(length=16), nullable=False),
        sa.Column("told_before", sa.String(length=16), nullable=False),
        sa.Column("channel", sa.String(length=32), nullable=False),
        sa.Column("channel_kind", sa.String(length=16), nullable=False),
        sa.Column("step", sa.Integer(), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("answer_within_s", sa.Double(), nullable=True),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("refusals", sa.Integer(), nullable=False),
        sa.Column("next_attempt_at", sa.Double(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("sent_at", sa.Double(), nullable=True),
        sa.Column("answer", sa.Text(), nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("acknowledged_at", sa.Double(), nullable=True),
        sa.Column("acknowledged_by", sa.String(length=64), nullable=True),
        sa.Column("lease_owner", sa.String(length=128), nullable=True),
        sa.Column("lease_expires_at", sa.Double(), nullable=True),
        sa.ForeignKeyConstraint(["study_id"], ["study.id"]),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("identifier"),
        sa.UniqueConstraint("study_id", "revision", "kind", "channel", "step"),
    )
    op.create_index("alert_by_state", "alert", ["state", "next_attempt_at"])
    op.create_index("alert_by_time", "alert", ["sent_at", "channel"])
    awaited = sa.text("state = 'SENT' AND answer_within_s IS NOT NULL")
    op.create_index("alert_awaited", "alert", ["sent_at"], sqlite_where=awaited, postgresql_where=awaited)
    op.create_table(
        "condition",
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("since", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("name"),
    )
