"""Where the current report of a study lies."""

from __future__ import annotations

from sqlalchemy import and_, select

from ich_node.database import Database, ResultRow, StudyRow
from ich_node.records import REPORT_KIND


def current_report_file(database: Database, study_instance_uid: str) -> str | None:
    """Give the file of the report that holds now, relative to the state folder; None where none is there."""
    wanted = (
        select(ResultRow.path)
        .join(StudyRow, and_(StudyRow.id == ResultRow.study_id, StudyRow.revision == ResultRow.revision))
        .where(
            StudyRow.study_instance_uid == study_instance_uid,
            ~StudyRow.withdrawn,
            ResultRow.kind == REPORT_KIND,
            ResultRow.path.is_not(None),
        )
        .order_by(ResultRow.preference)
    )
    with database.reading() as connection:
        return connection.execute(wanted.limit(1)).scalar()
