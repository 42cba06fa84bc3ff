"""Conclude: one transaction saves the finding, the report and its deliveries, or nothing."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, exists, func, insert, select, update
from sqlalchemy.orm import aliased

from ich_node.database import Database, DeliveryRow, InstanceRow, PlaneRow, ResultRow, SeriesRow, StudyRow
from ich_node.records import (
    DeliveryState,
    Destination,
    InstanceState,
    NotAnalysedReason,
    SeriesJob,
    SeriesState,
    Triage,
)

_RANK = {None: 0, Triage.NEGATIVE: 1, Triage.INDETERMINATE: 2, Triage.POSITIVE: 3}
_WITHOUT_RESULT = (SeriesState.NOT_ANALYSED, SeriesState.FAILED)
_OPEN = (SeriesState.RECEIVING, SeriesState.COMPLETE)


@dataclass(frozen=True, slots=True)
class SavedObject:
    """A result object whose file is safe on disk."""

    kind: str
    encoding: str
    preference: int
    sop_class_uid: str
    sop_instance_uid: str
    sha256: str
    path: str


@dataclass(frozen=True, slots=True)
class Conclusion:
    """How a series ended."""

    state: SeriesState
    """CONCLUDED or NOT_ANALYSED."""
    triage: Triage | None = None
    reason: NotAnalysedReason | None = None
    detail: str = ""
    complete: bool | None = None
    head_expected: bool = False
    planes: int = 0
    """How many planes the finding rests on; fewer or more in the database, and the conclusion is void."""
    finding: dict[str, Any] | None = None
    model: dict[str, Any] | None = None
    model_sha256: str | None = None
    steps: dict[str, float] = field(default_factory=dict)
    revision: int | None = None
    """Of the report; None where this series adds no report."""
    objects: tuple[SavedObject, ...] = ()
    destinations: tuple[Destination, ...] = ()


@dataclass(frozen=True, slots=True)
class UnreportedStudy:
    """A study in which a head CT was to be expected, all is settled, and nothing was concluded or told yet."""

    id: int
    study_instance_uid: str
    series_id: int
    revision: int
    reason: NotAnalysedReason
    detail: str
    calling_ae_title: str
    remote_address: str


def next_revision(database: Database, job: SeriesJob, triage: Triage | None) -> int | None:
    """Give the revision a report of this series would have; None where the study's answer stays as it is.

    The study keeps the highest triage of its series: another series that says less changes nothing.
    """
    with database.reading() as connection:
        study = _study_of_series(connection, job.id)
        return study.revision + 1 if _speaks(study, job.id, triage) else None


def conclude_series(database: Database, job: SeriesJob, owner: str, conclusion: Conclusion) -> bool:
    """Save a conclusion with its report and deliveries.

    Returns:
        False where it no longer holds: the lease was lost, a slice arrived, or the study got another revision.
        Nothing is saved then.
    """
    now = time.time()
    with database.writing() as connection:
        if not _still_holds(connection, job, owner, conclusion):
            return False
        study = _study_of_series(connection, job.id)
        if conclusion.revision is not None:
            if study.revision + 1 != conclusion.revision:
                return False
            _save_report(connection, study.id, conclusion.revision, conclusion.objects, conclusion.destinations, now)
            answer = {"triage": conclusion.triage, "rests_on_series_id": job.id, "reason": _name(conclusion.reason)}
            _answer(connection, study.id, conclusion.revision, now, answer)
        _settle(connection, job.id, conclusion)
        return True


def _still_holds(connection: Connection, job: SeriesJob, owner: str, conclusion: Conclusion) -> bool:
    mine = select(SeriesRow.id).where(
        SeriesRow.id == job.id, SeriesRow.lease_owner == owner, SeriesRow.state == SeriesState.COMPLETE
    )
    if not connection.execute(mine).first():
        return False
    waiting = select(InstanceRow.id).where(
        InstanceRow.series_id == job.id, InstanceRow.state == InstanceState.RECEIVED, InstanceRow.current
    )
    if connection.execute(waiting.limit(1)).first():
        return False
    planes = select(func.count()).where(PlaneRow.series_id == job.id, PlaneRow.model_sha256 == conclusion.model_sha256)
    return conclusion.state != SeriesState.CONCLUDED or connection.execute(planes).scalar_one() == conclusion.planes


def _settle(connection: Connection, series_id: int, conclusion: Conclusion) -> None:
    connection.execute(
        update(SeriesRow)
        .where(SeriesRow.id == series_id)
        .values(
            state=conclusion.state,
            triage=conclusion.triage,
            reason=_name(conclusion.reason),
            detail=conclusion.detail or None,
            complete=conclusion.complete,
            head_expected=conclusion.head_expected,
            finding=conclusion.finding,
            model=conclusion.model,
            steps=conclusion.steps,
            attempts=0,
            lease_owner=None,
            lease_expires_at=None,
        )
    )


def unreported_studies(database: Database, limit: int = 10) -> list[UnreportedStudy]:
    """List studies that end without a result although a head CT was to be expected, and that nobody was told of."""
    any_series = aliased(SeriesRow)
    unsettled = exists().where(
        any_series.study_id == StudyRow.id, any_series.state.in_((*_OPEN, SeriesState.CONCLUDED))
    )
    with database.reading() as connection:
        rows = connection.execute(
            select(StudyRow.id, StudyRow.study_instance_uid, StudyRow.revision, SeriesRow.id.label("series_id"),
                   SeriesRow.reason, SeriesRow.detail, SeriesRow.calling_ae_title, SeriesRow.remote_address)
            .join(SeriesRow, SeriesRow.study_id == StudyRow.id)
            .where(StudyRow.reported_at.is_(None), SeriesRow.head_expected, SeriesRow.state.in_(_WITHOUT_RESULT),
                   ~unsettled)
            .order_by(SeriesRow.id)
            .limit(limit)
        ).all()  # fmt: skip
    first_of_each = {row.id: row for row in reversed(rows)}
    return [
        UnreportedStudy(
            id=row.id,
            study_instance_uid=row.study_instance_uid,
            series_id=row.series_id,
            revision=row.revision + 1,
            reason=NotAnalysedReason[row.reason or NotAnalysedReason.ANALYSIS_FAILED.name],
            detail=row.detail or "",
            calling_ae_title=row.calling_ae_title,
            remote_address=row.remote_address,
        )
        for row in first_of_each.values()
    ]


def report_not_analysed(
    database: Database, study: UnreportedStudy, objects: Sequence[SavedObject], destinations: Sequence[Destination]
) -> bool:
    """Save the report that says why a study has no result. False: the study got another answer meanwhile.

    Without objects (no header could be read to report on), the study only shows in the status.
    """
    now = time.time()
    still_open = exists().where(SeriesRow.study_id == study.id, SeriesRow.state.in_((*_OPEN, SeriesState.CONCLUDED)))
    with database.writing() as connection:
        current = connection.execute(select(StudyRow.revision).where(StudyRow.id == study.id, ~still_open)).scalar()
        if current is None or current + 1 != study.revision:
            return False
        revision = study.revision if objects else current
        if objects:
            _save_report(connection, study.id, revision, objects, destinations, now)
        answer = {"triage": None, "rests_on_series_id": study.series_id, "reason": study.reason.name}
        _answer(connection, study.id, revision, now, answer)
        return True


def _save_report(
    connection: Connection,
    study_id: int,
    revision: int,
    objects: Sequence[SavedObject],
    destinations: Sequence[Destination],
    now: float,
) -> None:
    for saved in objects:
        values = {
            "study_id": study_id, "revision": revision, "kind": saved.kind, "encoding": saved.encoding,
            "preference": saved.preference, "sop_class_uid": saved.sop_class_uid,
            "sop_instance_uid": saved.sop_instance_uid, "sha256": saved.sha256, "path": saved.path, "created_at": now,
        }  # fmt: skip
        connection.execute(insert(ResultRow).values(values))
    _supersede_older(connection, study_id, now)
    for kind in dict.fromkeys(saved.kind for saved in objects):
        add_deliveries(connection, study_id, revision, kind, destinations, now)


def _supersede_older(connection: Connection, study_id: int, now: float) -> None:
    unsent = (DeliveryState.PENDING, DeliveryState.SENDING, DeliveryState.HELD, DeliveryState.DEAD)
    connection.execute(
        update(DeliveryRow)
        .where(DeliveryRow.study_id == study_id, DeliveryRow.state.in_(unsent))
        .values(state=DeliveryState.SUPERSEDED, finished_at=now, lease_owner=None, lease_expires_at=None)
    )


def add_deliveries(
    connection: Connection, study_id: int, revision: int, kind: str, destinations: Sequence[Destination], now: float
) -> None:
    """Enter an outbox row per destination."""
    for destination in destinations:
        values = {
            "study_id": study_id, "revision": revision, "kind": kind, "destination": destination.name,
            "ae_title": destination.ae_title, "host": destination.host, "port": destination.port,
            "state": DeliveryState.PENDING, "next_attempt_at": now, "created_at": now,
        }  # fmt: skip
        connection.execute(insert(DeliveryRow).values(values))


def _answer(connection: Connection, study_id: int, revision: int, now: float, answer: dict[str, Any]) -> None:
    values = {"revision": revision, "reported_at": now} | answer
    connection.execute(update(StudyRow).where(StudyRow.id == study_id).values(values))


def _study_of_series(connection: Connection, series_id: int) -> Any:
    return connection.execute(
        select(StudyRow).join(SeriesRow, SeriesRow.study_id == StudyRow.id).where(SeriesRow.id == series_id)
    ).one()


def _speaks(study: Any, series_id: int, triage: Triage | None) -> bool:
    if study.revision == 0 or study.rests_on_series_id == series_id:
        return True
    if study.triage is None and study.reason != NotAnalysedReason.UNTRAINED_MODEL.name:
        return True  # so far it was only told why there is no result
    known = Triage(study.triage) if study.triage else None
    return _RANK[triage] > _RANK[known]


def _name(reason: NotAnalysedReason | None) -> str | None:
    return reason.name if reason else None
