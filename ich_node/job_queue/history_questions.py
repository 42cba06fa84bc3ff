"""What the PACS says of a patient's earlier studies: which studies to ask about, and its answer."""

from __future__ import annotations

import time
from dataclasses import dataclass

from sqlalchemy import or_, select, update

from ich_node.database import Database, InstanceRow, SeriesRow, StudyRow
from ich_node.database.of_patients import series_of_patients
from ich_node.records import OPEN_SERIES, EarlierStudies, InstanceState

_ASK_AGAIN_S = 10.0


@dataclass(frozen=True, slots=True)
class HistoryQuestion:
    """A study whose patient's earlier studies are to be asked for."""

    study_id: int
    path: str
    """Of one of its images, relative to the state folder: it says whose study it is, which no table does."""


def studies_to_ask_about(database: Database, limit: int) -> list[HistoryQuestion]:
    """List studies that are arriving, have a slice that is analysed, and were not answered about; urgent ones first.

    What is concluded before it was asked about stays unknown: nobody waits, and an old archive is not asked for.
    """
    image = (
        select(InstanceRow.path)
        .where(InstanceRow.series_id == SeriesRow.id, InstanceRow.state == InstanceState.DECODED)
        .where(InstanceRow.current, InstanceRow.path.is_not(None))
        .correlate(SeriesRow)
        .limit(1)
        .scalar_subquery()
    )
    due = or_(StudyRow.history_asked_at.is_(None), StudyRow.history_asked_at < time.time() - _ASK_AGAIN_S)
    wanted = (
        select(StudyRow.id, image.label("path"))
        .select_from(SeriesRow)
        .join(StudyRow, StudyRow.id == SeriesRow.study_id)
        .where(
            SeriesRow.state.in_(OPEN_SERIES),
            SeriesRow.patient_mark.is_not(None),
            StudyRow.pacs_studies.is_(None),
            due,
            series_of_patients(),
        )
        .order_by(SeriesRow.priority.desc(), SeriesRow.id)
        .limit(limit)
    )
    with database.reading() as connection:
        rows = connection.execute(wanted).all()
    return [HistoryQuestion(study_id, path) for study_id, path in {row.id: row.path for row in rows}.items() if path]


def note_history_asked(database: Database, study_id: int) -> None:
    """Note that the PACS is about to be asked."""
    _note(database, study_id, {"history_asked_at": time.time()})


def note_history(database: Database, study_id: int, earlier: EarlierStudies) -> None:
    """Note what the PACS answered."""
    _note(database, study_id, {"pacs_studies": earlier.count, "pacs_newest": earlier.newest or None})


def _note(database: Database, study_id: int, values: dict[str, float | int | str | None]) -> None:
    with database.writing() as connection:
        connection.execute(update(StudyRow).where(StudyRow.id == study_id).values(values))
