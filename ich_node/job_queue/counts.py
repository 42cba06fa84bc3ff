"""What the PACS says of the size of a series: which series to ask about, and what its answer changes."""

from __future__ import annotations

import time
from dataclasses import dataclass

from sqlalchemy import ColumnElement, Connection, ScalarSelect, and_, case, func, or_, select, update

from ich_node.database import Database, InstanceRow, SeriesRow, StudyRow
from ich_node.database.of_patients import series_of_patients
from ich_node.records import OPEN_SERIES

_QUIET_S = 0.5
"""In the middle of a transfer the PACS holds no more than the node does."""
_ASK_AGAIN_S = 2.0


@dataclass(frozen=True, slots=True)
class SeriesQuestion:
    """A series whose number of instances is to be asked."""

    series_id: int
    study_instance_uid: str
    series_instance_uid: str


def series_to_ask(database: Database, limit: int) -> list[SeriesQuestion]:
    """List open CT series that paused since they were asked about, or that lacked slices when they were.

    The most urgent come first, then those that were never asked about.
    """
    now = time.time()
    wanted = (
        select(SeriesRow.id, StudyRow.study_instance_uid, SeriesRow.series_instance_uid)
        .join(StudyRow, StudyRow.id == SeriesRow.study_id)
        .where(
            SeriesRow.state.in_(OPEN_SERIES),
            SeriesRow.modality == "CT",
            SeriesRow.last_received_at <= now - _QUIET_S,
            series_of_patients(),
        )
        .where(or_(_not_asked_since_the_last_slice(), _lacked_slices(now)))
        .order_by(SeriesRow.priority.desc(), func.coalesce(SeriesRow.asked_at, 0.0), SeriesRow.id)
        .limit(limit)
    )
    with database.reading() as connection:
        return [SeriesQuestion(*row) for row in connection.execute(wanted)]


def note_asked(database: Database, series_id: int) -> float:
    """Note that the PACS is about to be asked; return when, for :func:`note_count`."""
    asked_at = time.time()
    with database.writing() as connection:
        connection.execute(update(SeriesRow).where(SeriesRow.id == series_id).values(asked_at=asked_at))
    return asked_at


def note_count(database: Database, series_id: int, asked_at: float, count: int | None) -> None:
    """Note how many instances the PACS holds; a series that is all here, and quiet since the question, is due now.

    A count that is None or 0 changes nothing: the PACS may not have the series yet.
    """
    if not count or count < 0:
        return
    with database.writing() as connection:
        values = {"expected_instances": count, "counted_at": asked_at}
        connection.execute(update(SeriesRow).where(SeriesRow.id == series_id).values(values))
        here = select(_here()).where(SeriesRow.id == series_id)
        if connection.execute(here).scalar_one() >= count:
            _make_due(connection, series_id, asked_at)


def _make_due(connection: Connection, series_id: int, asked_at: float) -> None:
    now = time.time()
    connection.execute(
        update(SeriesRow)
        .where(SeriesRow.id == series_id, SeriesRow.state.in_(OPEN_SERIES), SeriesRow.last_received_at <= asked_at)
        .values(due_at=case((SeriesRow.due_at > now, now), else_=SeriesRow.due_at))
    )


def _not_asked_since_the_last_slice() -> ColumnElement[bool]:
    return or_(SeriesRow.asked_at.is_(None), SeriesRow.asked_at < SeriesRow.last_received_at)


def _lacked_slices(now: float) -> ColumnElement[bool]:
    return and_(SeriesRow.asked_at < now - _ASK_AGAIN_S, SeriesRow.expected_instances > _here())


def _here() -> ScalarSelect[int]:
    """Count the current instances of a series of the enclosing statement."""
    counted = select(func.count()).select_from(InstanceRow)
    return (
        counted.where(InstanceRow.series_id == SeriesRow.id, InstanceRow.current).correlate(SeriesRow).scalar_subquery()
    )
