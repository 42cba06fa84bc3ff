"""Earlier studies of a patient"""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("study", sa.Column("history_asked_at", sa.Double(), nullable=True))
    op.add_column("study", sa.Column("pacs_studies", sa.Integer(), nullable=True))
    op.add_column("study", sa.Column("pacs_newest", sa.String(length=8), nullable=True))
    op.add_column("series", sa.Column("patient_mark", sa.String(length=32), nullable=True))
    op.add_column("series", sa.Column("birth_mark", sa.String(length=32), nullable=True))
    if op.get_bind().dialect.name == "sqlite":  # no node knew anybody in another database before
        op.execute(_PATIENTS_KNOWN_BEFORE)
    op.create_index("series_by_patient", "series", ["patient_mark"])


_PATIENTS_KNOWN_BEFORE = """
    UPDATE series SET (patient_mark, birth_mark) = (
        SELECT json_extract(marks, '$.patient_id'), NULLIF(json_extract(marks, '$.patient_birth_date'), '')
        FROM instance
        WHERE instance.series_id = series.id AND current AND json_extract(marks, '$.patient_id') != ''
        ORDER BY instance.id DESC LIMIT 1
    )"""
"""As the newest image with a PatientID says."""
