"""What has happened since somebody last looked: counted by rows that stay, so that nothing is counted twice."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, Select, and_, exists, func, select
from sqlalchemy.orm import aliased

from ich_node.database import AlertRow, Database, DeliveryRow, InstanceRow, ResultRow, SelfTestRow, SeriesRow, StudyRow
from ich_node.database.of_patients import (
    newest_of_patients,
    self_test_studies,
    series_of_patients,
    studies_of_patients,
)
from ich_node.records import ANALYSED_SOP_CLASSES, REPORT_KIND, DeliveryState
from ich_node.records.alerts import NOT_ANALYSED, WITHDRAWN

STEPS: Final = (
    "receiving",
    "closing",
    "analysing",
    "reporting",
    "answering",
    "delivering",
    "alerting",
    "acknowledging",
)
"""Of which it is counted how long they take, in their order; ``answering`` is from the last slice to the report."""
REPLACED: Final = "replaced"
"""What a report says of which the next revision was there before anybody looked."""
_OPEN: Final = (DeliveryState.PENDING, DeliveryState.SENDING)
_THERE: Final = (DeliveryState.DELIVERED, DeliveryState.COMMITTED)
_INSTANCES_FOR_A_RESULT: Final = 50


@dataclass(frozen=True, slots=True)
class Mark:
    """Up to where somebody has looked: numbers of rows, and times."""

    study: int = 0
    series: int = 0
    instance: int = 0
    result: int = 0
    delivery: int = 0
    """All rows before it are finished."""
    delivered_at: float = 0.0
    told_at: float = 0.0
    acknowledged_at: float = 0.0
    self_tested_at: float = 0.0


@dataclass(frozen=True, slots=True)
class Happenings:
    """What was counted, and where to go on."""

    counts: Counter[tuple[str, ...]]
    """By name, and what it is told apart by."""
    seconds: tuple[tuple[str, float], ...]
    """A step of one study, and how long it took."""
    mark: Mark
    more: bool
    """There was more than is looked at in one go."""


def happenings_since(database: Database, since: Mark, most: int = 5000) -> Happenings:
    """Count what has come, was reported, delivered, told and acknowledged since a mark.

    Args:
        most: results that are looked at in one go.
    """
    now = time.time()
    counts: Counter[tuple[str, ...]] = Counter()
    seconds: list[tuple[str, float]] = []
    with database.reading() as connection:
        ours = self_test_studies(connection)
        newest = _newest(connection, ours)
        counts["studies",] = _came(connection, StudyRow.id, since.study, newest[StudyRow], StudyRow.id.not_in(ours))
        counts["series",] = _came(connection, SeriesRow.id, since.series, newest[SeriesRow], series_of_patients())
        instance = min(newest[InstanceRow], since.instance + _INSTANCES_FOR_A_RESULT * most)
        result = min(newest[ResultRow], since.result + most)
        _count_instances(connection, since.instance, instance, ours, counts)
        _count_reports(connection, since.result, result, counts, seconds)
        delivered_at = _count_delivered(connection, since, now, counts, seconds)
        told_at = _count_told(connection, since.told_at, now, counts, seconds)
        acknowledged_at = _count_acknowledged(connection, since.acknowledged_at, now, seconds)
        self_tested_at = _count_self_tests(connection, since.self_tested_at, now, counts)
        mark = Mark(
            study=newest[StudyRow], series=newest[SeriesRow], instance=instance, result=result,
            delivery=_first_unfinished(connection, newest[DeliveryRow]), delivered_at=delivered_at, told_at=told_at,
            acknowledged_at=acknowledged_at, self_tested_at=self_tested_at,
        )  # fmt: skip
    more = instance < newest[InstanceRow] or result < newest[ResultRow]
    return Happenings(counts, tuple(seconds), mark, more)


def _newest(connection: Connection, ours: Sequence[int]) -> dict[Any, int]:
    """Give the highest number in each table that is of a patient: those of a self-test go to others when it is over."""
    of_ours = select(SeriesRow.id).where(SeriesRow.study_id.in_(ours))
    conditions: dict[Any, tuple[ColumnElement[bool], ...]] = {
        StudyRow: (StudyRow.id.not_in(ours),),
        SeriesRow: (series_of_patients(),),
        InstanceRow: (InstanceRow.series_id.not_in(of_ours),),
        ResultRow: (ResultRow.study_id.not_in(ours),),
        DeliveryRow: (),
    }
    return {
        table: newest_of_patients(connection, table.id, select(table.id).where(*some))
        for table, some in conditions.items()
    }


def _came(connection: Connection, key: Any, after: int, to: int, of_patients: ColumnElement[bool]) -> int:
    """Count rows and not numbers: those of a self-test leave gaps."""
    counted = select(func.count()).where(key > after, key <= to, of_patients)
    return connection.execute(counted).scalar_one()


def _count_instances(
    connection: Connection, after: int, to: int, ours: Sequence[int], counts: Counter[tuple[str, ...]]
) -> None:
    is_ct = InstanceRow.sop_class_uid.in_(ANALYSED_SOP_CLASSES)
    of_ours = select(SeriesRow.id).where(SeriesRow.study_id.in_(ours))
    came = select(is_ct, func.count(), func.sum(InstanceRow.size_bytes)).where(
        InstanceRow.id > after, InstanceRow.id <= to, InstanceRow.series_id.not_in(of_ours)
    )
    for ct, number, size_bytes in connection.execute(came.group_by(is_ct)).all():
        counts["instances", "ct" if ct else "other"] += number
        counts["bytes",] += int(size_bytes)  # PostgreSQL adds up in decimal numbers


def _count_reports(
    connection: Connection, after: int, to: int, counts: Counter[tuple[str, ...]], seconds: list[tuple[str, float]]
) -> None:
    for row in connection.execute(_reports(after, to)).all():
        counts["reports", _answer(row)] += 1
        if row.steps and row.is_first and row.created_at >= row.steps.get("report saved", float("inf")):
            seconds += _between(row.steps)


def _reports(after: int, to: int) -> Select[Any]:
    """Read reports with the steps of the series that the study's answer rests on.

    A later report on the same analysis took none of these steps again: only the first since it was saved did.
    """
    before = aliased(ResultRow)
    saved_at = SeriesRow.steps["report saved"].as_float()
    earlier = exists().where(
        before.study_id == ResultRow.study_id, before.kind == REPORT_KIND, before.preference == 0,
        before.id < ResultRow.id, before.created_at >= saved_at,
    )  # fmt: skip
    return (
        select(ResultRow.revision, ResultRow.created_at, SeriesRow.steps, (~earlier).label("is_first"))
        .add_columns(StudyRow.revision.label("newest"), StudyRow.triage, StudyRow.withdrawn)
        .join(StudyRow, StudyRow.id == ResultRow.study_id)
        .outerjoin(SeriesRow, SeriesRow.id == StudyRow.rests_on_series_id)
        .where(ResultRow.id > after, ResultRow.id <= to, ResultRow.kind == REPORT_KIND, ResultRow.preference == 0)
        .where(studies_of_patients())
        .order_by(ResultRow.id)
    )


def _answer(row: Any) -> str:
    if row.revision != row.newest:
        return REPLACED
    return WITHDRAWN if row.withdrawn else row.triage or NOT_ANALYSED


_BETWEEN: Final = {
    "receiving": ("first slice received", "last slice received"),
    "closing": ("last slice received", "series closed"),
    "analysing": ("series closed", "analysed"),
    "reporting": ("analysed", "report saved"),
    "answering": ("last slice received", "report saved"),
}


def _between(steps: dict[str, float]) -> list[tuple[str, float]]:
    pairs = [(name, steps.get(begin), steps.get(end)) for name, (begin, end) in _BETWEEN.items()]
    return [(name, end - begin) for name, begin, end in pairs if begin is not None and end is not None]


def _first_unfinished(connection: Connection, newest: int) -> int:
    first = select(func.min(DeliveryRow.id)).where(DeliveryRow.state.in_(_OPEN))
    return connection.execute(first).scalar() or newest + 1


def _count_delivered(
    connection: Connection, since: Mark, now: float, counts: Counter[tuple[str, ...]], seconds: list[tuple[str, float]]
) -> float:
    """Look at the rows after the mark alone: by their states, all that were ever delivered would be read."""
    finished = select(
        DeliveryRow.state, DeliveryRow.destination, DeliveryRow.kind, DeliveryRow.created_at, DeliveryRow.finished_at
    ).where(DeliveryRow.id >= since.delivery, DeliveryRow.finished_at > since.delivered_at)
    latest = since.delivered_at
    for row in connection.execute(finished):
        if row.state not in _THERE:
            continue
        latest = max(latest, row.finished_at)
        counts["delivered", row.destination] += 1
        if row.kind == REPORT_KIND:
            seconds.append(("delivering", row.finished_at - row.created_at))
    return min(now, latest)


def _count_told(
    connection: Connection, since: float, now: float, counts: Counter[tuple[str, ...]], seconds: list[tuple[str, float]]
) -> float:
    of_report = and_(
        ResultRow.study_id == AlertRow.study_id, ResultRow.revision == AlertRow.revision,
        ResultRow.kind == REPORT_KIND, ResultRow.preference == 0,
    )  # fmt: skip
    rows = connection.execute(
        select(AlertRow.channel, AlertRow.kind, AlertRow.step, AlertRow.study_id, AlertRow.sent_at)
        .add_columns(func.coalesce(ResultRow.created_at, AlertRow.created_at).label("known_at"))
        .outerjoin(ResultRow, of_report)
        .where(AlertRow.sent_at > since)
    ).all()
    for row in rows:
        counts["told", row.channel, row.kind] += 1
        if row.step == 0 and row.study_id is not None:
            seconds.append(("alerting", row.sent_at - row.known_at))
    return min(now, max((row.sent_at for row in rows), default=since))


def _count_acknowledged(connection: Connection, since: float, now: float, seconds: list[tuple[str, float]]) -> float:
    rows = connection.execute(
        select(AlertRow.sent_at, AlertRow.acknowledged_at).where(
            AlertRow.acknowledged_at > since, AlertRow.sent_at <= AlertRow.acknowledged_at
        )
    ).all()
    seconds += [("acknowledging", row.acknowledged_at - row.sent_at) for row in rows]
    return min(now, max((row.acknowledged_at for row in rows), default=since))


def _count_self_tests(connection: Connection, since: float, now: float, counts: Counter[tuple[str, ...]]) -> float:
    ended = select(SelfTestRow.passed, SelfTestRow.finished_at).where(
        SelfTestRow.finished_at > since, SelfTestRow.passed.is_not(None)
    )
    rows = connection.execute(ended).all()
    for row in rows:
        counts["self-tests", "passed" if row.passed else "failed"] += 1
    return min(now, max((row.finished_at for row in rows), default=since))
