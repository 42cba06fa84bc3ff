"""A sender's habits: how many slices its last series of a kind had, every one of them.

What is known of them are the rows of these series alone. A slice that comes late changes the count of its series, and
with that there is no habit any more until as many series as it takes have the same count again.
"""

from __future__ import annotations

import time
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, ScalarSelect, func, select, update

from ich_node.database import Database, InstanceRow, OpenAssociationRow, SeriesMeasureRow, SeriesRow
from ich_node.job_queue.facts import facts_from_json
from ich_node.records import InstanceState, SeriesState

SERIES_OF_A_HABIT: Final = 8
_SAME_THICKNESS_MM: Final = 0.01
_LONGEST_KERNEL: Final = 64


def close_by_habit(database: Database, series_id: int, *, max_wait_s: float) -> bool:
    """Make a series due whose association was released meanwhile, where it has as many slices as ever.

    An association that was cut or aborted, or is open, leaves the series to wait for ``max_wait_s``; only a release
    shortens that.
    """
    with database.reading() as connection:
        row = connection.execute(select(SeriesRow).where(SeriesRow.id == series_id, _may_close())).first()
        now = time.time()
        if row is None or row.due_at <= now or row.due_at >= row.last_received_at + max_wait_s:
            return False
        held = (OpenAssociationRow.series_id == series_id, OpenAssociationRow.lease_expires_at >= now)
        if connection.execute(select(OpenAssociationRow.id).where(*held).limit(1)).first():
            return False
        if not has_as_many_as_ever(connection, series_id):
            return False
    unchanged = (SeriesRow.id == series_id, _may_close(), SeriesRow.last_received_at == row.last_received_at)
    with database.writing() as connection:
        closed = connection.execute(update(SeriesRow).where(*unchanged, SeriesRow.due_at > now).values(due_at=now))
        return closed.rowcount == 1


def has_as_many_as_ever(connection: Connection, series_id: int) -> bool:
    """Say whether a series has exactly as many instances as each of the last eight of its sender and kind.

    A kind is station, kernel and slice thickness, as its first slice that was read names them.
    """
    here = select(SeriesRow, _count().label("present")).where(SeriesRow.id == series_id)
    series = connection.execute(here).one()
    if series.modality != "CT" or (series.expected_instances or 0) > series.present:
        return False
    first = select(InstanceRow.facts).where(
        InstanceRow.series_id == series_id, InstanceRow.current, InstanceRow.state == InstanceState.DECODED
    )
    facts = facts_from_json(connection.execute(first.order_by(InstanceRow.id).limit(1)).scalar())
    if not facts:
        return False
    counts = _counts_before(connection, series, facts[0].convolution_kernel, facts[0].slice_thickness_mm)
    return len(counts) == SERIES_OF_A_HABIT and set(counts) == {series.present}


def _counts_before(connection: Connection, series: Any, kernel: str, thickness_mm: float | None) -> list[int]:
    """Count the instances of the last series of a sender and kind, those that came late with them."""
    thickness = SeriesMeasureRow.slice_thickness_mm
    alike = thickness.is_(None) if thickness_mm is None else func.abs(thickness - thickness_mm) < _SAME_THICKNESS_MM
    wanted = (
        select(_count())
        .select_from(SeriesMeasureRow)
        .join(SeriesRow, SeriesRow.id == SeriesMeasureRow.series_id)
        .where(
            SeriesMeasureRow.station_name == series.station_name,
            SeriesMeasureRow.convolution_kernel == kernel[:_LONGEST_KERNEL],
            alike,
            SeriesRow.calling_ae_title == series.calling_ae_title,
            SeriesRow.remote_address == series.remote_address,
            SeriesRow.id != series.id,
        )
        .order_by(SeriesMeasureRow.measured_at.desc(), SeriesMeasureRow.id.desc())
        .limit(SERIES_OF_A_HABIT)
    )
    return list(connection.execute(wanted).scalars())


def _may_close() -> ColumnElement[bool]:
    """A series that was concluded before waits for more late slices."""
    return (SeriesRow.state == SeriesState.RECEIVING) & SeriesRow.concluded_at.is_(None)


def _count() -> ScalarSelect[int]:
    """Count the current instances of a series of the enclosing statement."""
    counted = select(func.count()).select_from(InstanceRow)
    return (
        counted.where(InstanceRow.series_id == SeriesRow.id, InstanceRow.current).correlate(SeriesRow).scalar_subquery()
    )
