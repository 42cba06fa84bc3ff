"""How the clock stood when what waits was last moved with it: in the database, so that no step moves it twice"""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "clock",
        sa.Column("boot", sa.String(length=64), nullable=False),
        sa.Column("offset_s", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("boot"),
    )
