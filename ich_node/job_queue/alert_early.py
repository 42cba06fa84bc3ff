"""Findings that are told before a series is complete, and what becomes of those that nothing follows."""

from __future__ import annotations

import time
from typing import Any, Final

from sqlalchemy import Connection, exists, select, text, update

from ich_node.database import Database, SeriesRow, StudyRow
from ich_node.database.of_patients import studies_of_patients
from ich_node.database.tables import TOLD_EARLY
from ich_node.records import OPEN_SERIES, SeriesJob

_NOTHING_COMES_S: Final = 30.0
"""After the last series of a study has ended: a report on it would be there."""


def note_early_finding(database: Database, job: SeriesJob, owner: str, finding: dict[str, Any]) -> bool:
    """Enter what is certain of a series that is arriving; the alerter tells of it.

    Returns:
        False where the study already has a report or an early finding, the series is no longer ours, or it is the
        node's own test.
    """
    ours = exists().where(
        SeriesRow.id == job.id,
        SeriesRow.study_id == StudyRow.id,
        SeriesRow.lease_owner == owner,
        SeriesRow.state.in_(OPEN_SERIES),
    )
    fresh = (StudyRow.revision == 0, StudyRow.early_series_id.is_(None), studies_of_patients(), ours)
    with database.reading() as connection:
        if not connection.execute(select(StudyRow.id).where(*fresh)).first():
            return False
    with database.writing() as connection:
        values = {"early_series_id": job.id, "early_finding": finding}
        return bool(connection.execute(update(StudyRow).where(*fresh).values(values)).rowcount)


def studies_left_without_result(connection: Connection) -> list[Any]:
    """Find studies of which people were told early, and which ended with no report at all."""
    series = select(SeriesRow.id).where(SeriesRow.study_id == StudyRow.id)
    still_open = series.where(SeriesRow.state.in_(OPEN_SERIES)).exists()
    recent = series.where(SeriesRow.last_received_at > time.time() - _NOTHING_COMES_S).exists()
    left = select(StudyRow).where(text(TOLD_EARLY), ~still_open, ~recent)
    return list(connection.execute(left).all())
