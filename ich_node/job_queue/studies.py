"""Studies that end without a result, and studies whose result does not hold any more."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import exists, select
from sqlalchemy.orm import aliased

from ich_node.database import Database, SeriesRow, StudyRow
from ich_node.job_queue.quarantine import gives_a_result, wake_next_best
from ich_node.job_queue.results import SavedObject, references_to, report_rows, save_report, set_answer
from ich_node.records import OPEN_SERIES, Destination, NotAnalysedReason, ReportReference, SeriesState

_WITHOUT_RESULT = (SeriesState.NOT_ANALYSED, SeriesState.FAILED)
_WITHOUT_TRUST = (SeriesState.QUARANTINED, SeriesState.REJECTED, SeriesState.NOT_ANALYSED, SeriesState.FAILED)


@dataclass(frozen=True, slots=True)
class StudyToTell:
    """A study whose report says that there is no result, or none any more."""

    id: int
    study_instance_uid: str
    series_id: int
    series_instance_uid: str
    revision: int
    """Of the report that says so."""
    reason: NotAnalysedReason
    detail: str
    calling_ae_title: str
    remote_address: str
    old: bool
    previous_file: str | None = None
    """Of the report that is withdrawn, relative to the state folder; None where it is gone."""
    predecessors: tuple[ReportReference, ...] = ()


_COLUMNS = (
    StudyRow.id, StudyRow.study_instance_uid, StudyRow.revision, StudyRow.old, SeriesRow.id.label("series_id"),
    SeriesRow.series_instance_uid,
    SeriesRow.reason, SeriesRow.detail, SeriesRow.calling_ae_title, SeriesRow.remote_address,
)  # fmt: skip


def unreported_studies(database: Database, limit: int = 10) -> list[StudyToTell]:
    """List studies that end without a result although a head CT was to be expected, and that nobody was told of."""
    any_series = aliased(SeriesRow)
    unsettled = exists().where(
        any_series.study_id == StudyRow.id, any_series.state.in_((*OPEN_SERIES, SeriesState.CONCLUDED))
    )
    with database.reading() as connection:
        rows = connection.execute(
            select(*_COLUMNS)
            .join(SeriesRow, SeriesRow.study_id == StudyRow.id)
            .where(
                StudyRow.reported_at.is_(None),
                SeriesRow.head_expected,
                SeriesRow.state.in_(_WITHOUT_RESULT),
                ~unsettled,
            )
            .order_by(StudyRow.old, SeriesRow.id)
            .limit(limit)
        ).all()
    first_of_each = {row.id: row for row in reversed(rows)}
    return [_study(row) for row in first_of_each.values()]


def studies_to_withdraw(database: Database, limit: int = 10) -> list[StudyToTell]:
    """List studies whose current answer is in doubt, and whose series has no result to take its place."""
    with database.reading() as connection:
        rows = connection.execute(
            select(*_COLUMNS)
            .join(SeriesRow, SeriesRow.id == StudyRow.rests_on_series_id)
            .where(
                StudyRow.doubted,
                StudyRow.revision > 0,
                ~StudyRow.withdrawn,
                gives_a_result(),
                SeriesRow.state.in_(_WITHOUT_TRUST),
            )
            .order_by(StudyRow.id)
            .limit(limit)
        ).all()
        reports = {row.id: report_rows(connection, row) for row in rows}
    return [_study(row, reports[row.id]) for row in rows]


def _study(row: Any, report: Sequence[Any] = ()) -> StudyToTell:
    return StudyToTell(
        id=row.id,
        study_instance_uid=row.study_instance_uid,
        series_id=row.series_id,
        series_instance_uid=row.series_instance_uid,
        revision=row.revision + 1,
        reason=NotAnalysedReason[row.reason or NotAnalysedReason.ANALYSIS_FAILED.name],
        detail=row.detail or "",
        calling_ae_title=row.calling_ae_title,
        remote_address=row.remote_address,
        old=row.old,
        previous_file=report[0].path if report else None,
        predecessors=references_to(report),
    )


def report_not_analysed(
    database: Database, study: StudyToTell, objects: Sequence[SavedObject], destinations: Sequence[Destination]
) -> bool:
    """Save the report that says why a study has no result. False: the study got another answer meanwhile.

    Without objects (no header could be read to report on), the study only shows in the status.
    """
    still_open = exists().where(
        SeriesRow.study_id == study.id, SeriesRow.state.in_((*OPEN_SERIES, SeriesState.CONCLUDED))
    )
    with database.writing() as connection:
        current = connection.execute(select(StudyRow.revision).where(StudyRow.id == study.id, ~still_open)).scalar()
        return _tell(connection, study, current, objects, destinations, withdrawn=False)


def withdraw_study(
    database: Database, study: StudyToTell, objects: Sequence[SavedObject], destinations: Sequence[Destination]
) -> bool:
    """Save the report that takes a study's result back, and let its other series speak. False: it changed meanwhile.

    Without objects (the report that is withdrawn is gone), the study only shows in the status.
    """
    with database.writing() as connection:
        holds = (
            select(StudyRow.revision)
            .join(SeriesRow, SeriesRow.id == StudyRow.rests_on_series_id)
            .where(StudyRow.id == study.id, ~StudyRow.withdrawn)
            .where(SeriesRow.id == study.series_id, SeriesRow.state.in_(_WITHOUT_TRUST))
        )
        current = connection.execute(holds).scalar()
        if not _tell(connection, study, current, objects, destinations, withdrawn=True):
            return False
        wake_next_best(connection, study.series_id, concluded_too=True)
        return True


def _tell(
    connection: Any,
    study: StudyToTell,
    current: int | None,
    objects: Sequence[SavedObject],
    destinations: Sequence[Destination],
    *,
    withdrawn: bool,
) -> bool:
    if current is None or current + 1 != study.revision:
        return False
    now = time.time()
    revision = study.revision if objects else current
    if objects:
        save_report(connection, study.id, revision, objects, destinations, now)
    answer = {
        "triage": None,
        "rests_on_series_id": study.series_id,
        "reason": study.reason.name,
        "withdrawn": withdrawn,
    }
    if not objects and current:  # the revision stays, and people are to be told all the same
        answer["alerted_revision"] = current - 1
    set_answer(connection, study.id, revision, now, answer)
    return True
