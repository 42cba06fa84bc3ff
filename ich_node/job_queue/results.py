"""Conclude: one transaction saves the finding, the report and its deliveries, or nothing."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, insert, select, update

from ich_node.database import Database, DeliveryRow, InstanceRow, ResultRow, SeriesRow, StudyRow
from ich_node.failpoint import reach
from ich_node.job_queue.content import stamp_of
from ich_node.job_queue.drift import keep_measure
from ich_node.job_queue.quarantine import doubt_answer, supersede_unsent
from ich_node.records import (
    REPORT_KIND,
    TRIAGE_RANKS,
    DeliveryState,
    Destination,
    InstanceState,
    NotAnalysedReason,
    OtherSeriesFinding,
    ReportReference,
    SeriesJob,
    SeriesMeasure,
    SeriesState,
    Triage,
)


@dataclass(frozen=True, slots=True)
class SavedObject:
    """A result object whose file is safe on disk."""

    kind: str
    encoding: str
    preference: int
    sop_class_uid: str
    sop_instance_uid: str
    series_instance_uid: str
    sha256: str
    path: str


@dataclass(frozen=True, slots=True)
class ReportPlan:
    """What is to be said of a study once a series is concluded."""

    study_revision: int
    """Of the study as it is; another one when the conclusion is saved, and the conclusion is void."""
    revision: int | None
    """Of the report to make; None where the study's answer stays as it is."""
    rests_on_series_id: int
    triage: Triage | None
    reason: NotAnalysedReason | None
    other_series: tuple[OtherSeriesFinding, ...] = ()
    predecessors: tuple[ReportReference, ...] = ()
    old: bool = False


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
    stamp: tuple[int, int] = (0, 0)
    """Of the instances that the conclusion rests on; others in the database, and it is void."""
    planes: int = 0
    choice: dict[str, Any] | None = None
    fingerprint: str | None = None
    finding: dict[str, Any] | None = None
    model: dict[str, Any] | None = None
    steps: dict[str, float] = field(default_factory=dict)
    plan: ReportPlan | None = None
    """None where the series is not analysed."""
    objects: tuple[SavedObject, ...] = ()
    destinations: tuple[Destination, ...] = ()
    measure: SeriesMeasure | None = None
    """What is compared with other series over time."""

    @property
    def revision(self) -> int | None:
        """Revision of the study's report that this conclusion adds."""
        return None if self.plan is None else self.plan.revision


def plan_report(
    database: Database,
    job: SeriesJob,
    triage: Triage | None,
    reason: NotAnalysedReason | None,
    fingerprint: str,
    series_number: int | None = None,
) -> ReportPlan:
    """Decide what a study says once this series has ``triage``.

    The study keeps the highest triage of its concluded series. Where another series says something else, the report
    shows both. A series that says what it said before, of the same content, adds no revision.
    """
    with database.reading() as connection:
        study = _study_of_series(connection, job.id)
        mine = connection.execute(select(SeriesRow).where(SeriesRow.id == job.id)).one()
        others = connection.execute(
            select(SeriesRow).where(
                SeriesRow.study_id == study.id, SeriesRow.id != job.id, SeriesRow.state == SeriesState.CONCLUDED
            )
        ).all()
        leader = _leader(study, job.id, triage, others)
        predecessors = references_to(report_rows(connection, study))
    # else what was to be sent of it was stopped, or a person asked for it again
    holds = not (study.withdrawn or study.doubted) and study.reported_at is not None
    said_before = mine.fingerprint is not None and mine.fingerprint == fingerprint and holds
    if leader is None:
        says, why = triage, reason
        silent = said_before and study.rests_on_series_id == job.id
    else:
        says = Triage(leader.triage) if leader.triage else None
        why = NotAnalysedReason[leader.reason] if leader.reason else None
        agreed_before = mine.concluded_at is None or _triage(mine) is triage
        rests_there = study.rests_on_series_id == leader.id
        silent = said_before or (says is triage and agreed_before and rests_there and holds)
    all_others = {one.id: one for one in others}
    if leader is not None:
        all_others.pop(leader.id)
    differing = [_other(one) for one in all_others.values() if _triage(one) is not says]
    if leader is not None and says is not triage:
        differing.append(OtherSeriesFinding(job.series_instance_uid, series_number, triage))
    return ReportPlan(
        study_revision=study.revision,
        revision=None if silent else study.revision + 1,
        rests_on_series_id=job.id if leader is None else leader.id,
        triage=says,
        reason=why,
        other_series=tuple(differing),
        predecessors=predecessors,
        old=study.old,
    )


def _leader(study: Any, series_id: int, triage: Triage | None, others: Sequence[Any]) -> Any | None:
    """The other series that the study's answer rests on; None where this one leads. Among equals the first stays."""
    if not others:
        return None
    best = max(others, key=lambda one: (TRIAGE_RANKS[_triage(one)], one.id == study.rests_on_series_id, -one.id))
    rank, mine = TRIAGE_RANKS[_triage(best)], TRIAGE_RANKS[triage]
    stays = best.id == study.rests_on_series_id or study.rests_on_series_id != series_id
    return best if rank > mine or (rank == mine and stays) else None


def _triage(row: Any) -> Triage | None:
    return Triage(row.triage) if row.triage else None


def _other(row: Any) -> OtherSeriesFinding:
    number = (row.choice or {}).get("series_number")
    return OtherSeriesFinding(row.series_instance_uid, number, _triage(row))


def report_rows(connection: Connection, study: Any) -> Sequence[Any]:
    """Read the objects of a study's current revision: the report first, its preferred encoding before the others."""
    wanted = select(ResultRow).where(ResultRow.study_id == study.id, ResultRow.revision == study.revision)
    return connection.execute(wanted.order_by(ResultRow.kind != REPORT_KIND, ResultRow.preference, ResultRow.id)).all()


def references_to(rows: Sequence[Any]) -> tuple[ReportReference, ...]:
    """Name the objects of a report for the one that follows it; an older version did not note their series."""
    return tuple(
        ReportReference(row.encoding, row.sop_class_uid, row.sop_instance_uid, row.series_instance_uid, row.kind)
        for row in rows
        if row.series_instance_uid is not None
    )


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
        plan = conclusion.plan
        if plan is not None and study.revision != plan.study_revision:
            return False
        if plan is not None and plan.revision is not None:
            save_report(connection, study.id, plan.revision, conclusion.objects, conclusion.destinations, now)
            answer = {
                "triage": plan.triage,
                "rests_on_series_id": plan.rests_on_series_id,
                "reason": _name(plan.reason),
                "withdrawn": False,
            }
            set_answer(connection, study.id, plan.revision, now, answer)
        _settle(connection, job.id, conclusion, now)
        reach("conclusion-before-commit")
        return True


def _still_holds(connection: Connection, job: SeriesJob, owner: str, conclusion: Conclusion) -> bool:
    mine = select(SeriesRow.id).where(
        SeriesRow.id == job.id, SeriesRow.lease_owner == owner, SeriesRow.state == SeriesState.COMPLETE
    )
    if not connection.execute(mine.with_for_update()).first():  # nobody may claim it before this is committed
        return False
    rows = connection.execute(
        select(InstanceRow.id, InstanceRow.state).where(InstanceRow.series_id == job.id, InstanceRow.current)
    ).all()
    if any(row.state == InstanceState.RECEIVED for row in rows):
        return False
    return stamp_of([row.id for row in rows]) == conclusion.stamp


def _settle(connection: Connection, series_id: int, conclusion: Conclusion, now: float) -> None:
    values: dict[str, Any] = {
        "state": conclusion.state,
        "triage": conclusion.triage,
        "reason": _name(conclusion.reason),
        "detail": conclusion.detail or None,
        "complete": conclusion.complete,
        "head_expected": conclusion.head_expected,
        "finding": conclusion.finding,
        "model": conclusion.model,
        "steps": conclusion.steps,
        "choice": conclusion.choice,
        "fingerprint": conclusion.fingerprint,
        "planes_waiting": 0,
        "attempts": 0,
        "lease_owner": None,
        "lease_expires_at": None,
    }
    connection.execute(update(SeriesRow).where(SeriesRow.id == series_id).values(values))
    if conclusion.measure is not None:
        keep_measure(connection, series_id, conclusion.measure, conclusion.triage, conclusion.reason, now)
    if conclusion.state == SeriesState.NOT_ANALYSED:
        doubt_answer(connection, series_id)
    else:
        first = (SeriesRow.id == series_id) & SeriesRow.concluded_at.is_(None)
        connection.execute(update(SeriesRow).where(first).values(concluded_at=now))


def save_report(
    connection: Connection,
    study_id: int,
    revision: int,
    objects: Sequence[SavedObject],
    destinations: Sequence[Destination],
    now: float,
) -> None:
    """Enter the objects of a report and their deliveries; what older ones wait for is over."""
    for saved in objects:
        values = {
            "study_id": study_id, "revision": revision, "kind": saved.kind, "encoding": saved.encoding,
            "preference": saved.preference, "sop_class_uid": saved.sop_class_uid,
            "sop_instance_uid": saved.sop_instance_uid, "series_instance_uid": saved.series_instance_uid,
            "sha256": saved.sha256, "path": saved.path, "created_at": now,
        }  # fmt: skip
        connection.execute(insert(ResultRow).values(values))
    supersede_unsent(connection, study_id)
    for kind in dict.fromkeys(saved.kind for saved in objects):
        add_deliveries(connection, study_id, revision, kind, destinations, now)


def add_deliveries(
    connection: Connection, study_id: int, revision: int, kind: str, destinations: Sequence[Destination], now: float
) -> None:
    """Enter an outbox row per destination that this kind of object goes to; held where the node is not live."""
    for destination in destinations:
        if not destination.wants(kind):
            continue
        values = {
            "study_id": study_id, "revision": revision, "kind": kind, "destination": destination.name,
            "ae_title": destination.ae_title, "host": destination.host, "port": destination.port,
            "state": DeliveryState.HELD if destination.held else DeliveryState.PENDING,
            "error": destination.held or None, "next_attempt_at": now, "created_at": now,
        }  # fmt: skip
        connection.execute(insert(DeliveryRow).values(values))


def set_answer(connection: Connection, study_id: int, revision: int, now: float, answer: dict[str, Any]) -> None:
    """Enter what a study's current report says."""
    values = {"revision": revision, "reported_at": now, "doubted": False} | answer
    connection.execute(update(StudyRow).where(StudyRow.id == study_id).values(values))


def _study_of_series(connection: Connection, series_id: int) -> Any:
    return connection.execute(
        select(StudyRow).join(SeriesRow, SeriesRow.study_id == StudyRow.id).where(SeriesRow.id == series_id)
    ).one()


def _name(reason: NotAnalysedReason | None) -> str | None:
    return reason.name if reason else None
