"""Analyse again what was analysed, failed or deleted before."""

from __future__ import annotations

import time

from sqlalchemy import ColumnElement, Connection, delete, or_, select, update

from ich_node.database import Database, InstanceRow, PlaneRow, SeriesRow, StudyRow
from ich_node.records import ANALYSED_SOP_CLASSES, InstanceState, SeriesState

_NOT_AGAIN = (SeriesState.QUARANTINED, SeriesState.REJECTED)


def requeue(database: Database, *, uid: str | None = None, failed_only: bool = False) -> int:
    """Queue series again, with every slice whose file is there; return how many series.

    The next conclusion raises the study's revision. What is quarantined or rejected is left alone.

    Args:
        uid: Study or Series Instance UID; None for all.
        failed_only: only series that are FAILED.
    """
    now = time.time()
    conditions: list[ColumnElement[bool]] = [SeriesRow.state.not_in(_NOT_AGAIN)]
    if uid is not None:
        conditions.append(or_(StudyRow.study_instance_uid == uid, SeriesRow.series_instance_uid == uid))
    if failed_only:
        conditions.append(SeriesRow.state == SeriesState.FAILED)
    with database.writing() as connection:
        found = select(SeriesRow.id, SeriesRow.study_id).join(StudyRow, StudyRow.id == SeriesRow.study_id)
        present = select(InstanceRow.series_id).where(InstanceRow.path.is_not(None), InstanceRow.current)
        rows = connection.execute(found.where(*conditions, SeriesRow.id.in_(present))).all()
        series_ids = [row.id for row in rows]
        connection.execute(delete(PlaneRow).where(PlaneRow.series_id.in_(series_ids)))
        _wake_instances(connection, series_ids)
        fresh = {
            "state": SeriesState.RECEIVING, "due_at": now, "not_before": 0.0, "attempts": 0, "reason": None,
            "detail": None, "closed_at": None, "lease_owner": None, "lease_expires_at": None, "images_deleted_at": None,
            "fingerprint": None, "planes_waiting": 0,
        }  # fmt: skip
        connection.execute(update(SeriesRow).where(SeriesRow.id.in_(series_ids)).values(fresh))
        studies = {row.study_id for row in rows}
        connection.execute(update(StudyRow).where(StudyRow.id.in_(studies)).values(reported_at=None))
        return len(series_ids)


def analyse_again(database: Database, series_id: int) -> bool:
    """Open a concluded series again, to have its finding anew. False: its images are gone."""
    here = select(InstanceRow.id).where(
        InstanceRow.series_id == series_id, InstanceRow.path.is_not(None), InstanceRow.current
    )
    fresh = {"state": SeriesState.RECEIVING, "due_at": time.time(), "attempts": 0, "fingerprint": None}
    with database.writing() as connection:
        if not connection.execute(here.limit(1)).first():
            return False
        connection.execute(update(SeriesRow).where(SeriesRow.id == series_id).values(fresh))
        return True


def _wake_instances(connection: Connection, series_ids: list[int]) -> None:
    connection.execute(
        update(InstanceRow)
        .where(
            InstanceRow.series_id.in_(series_ids),
            InstanceRow.path.is_not(None),
            InstanceRow.current,
            InstanceRow.sop_class_uid.in_(ANALYSED_SOP_CLASSES),
        )
        .values(state=InstanceState.RECEIVED, reason=None, detail=None, facts=None)
    )
