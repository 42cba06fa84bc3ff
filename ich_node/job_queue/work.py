"""The worker's side: claim a series, save what was scored, close it, or give it back."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np
from sqlalchemy import ColumnElement, Connection, and_, delete, exists, insert, or_, select, update

from ich_node.database import Database, InstanceRow, PlaneRow, SeriesRow, StudyRow
from ich_node.job_queue.facts import facts_from_json, facts_to_json
from ich_node.records import (
    InstanceState,
    NotAnalysedReason,
    PlaneScore,
    ScoredInstance,
    SeriesContent,
    SeriesJob,
    SeriesState,
    StoredInstance,
)

MAXIMUM_ATTEMPTS = 3
_OPEN = (SeriesState.RECEIVING, SeriesState.COMPLETE)


def claim_series(database: Database, owner: str, *, lease_s: float, max_wait_s: float, limit: int) -> list[SeriesJob]:
    """Take the lease of up to ``limit`` series that have slices waiting or are due, the longest waiting first.

    A lease that ran out counts as a failed attempt of its holder; after three, the series is FAILED. A series with
    failed attempts is handed out alone, so that it takes no other down with it.
    """
    now = time.time()
    with database.reading() as connection:  # most polls find nothing: they need not queue for the write lock
        if not connection.execute(_claimable(owner, now).limit(1)).first():
            return []
    with database.writing() as connection:
        rows = _apart(connection.execute(_claimable(owner, now).limit(limit)).all(), owner)
        jobs = []
        for row in rows:
            attempts = row.attempts + _was_left(row, owner)
            if attempts >= MAXIMUM_ATTEMPTS:
                _give_up(connection, row.id, attempts, "the worker died on it or failed three times")
                continue
            values = {"lease_owner": owner, "lease_expires_at": now + lease_s, "attempts": attempts}
            connection.execute(update(SeriesRow).where(SeriesRow.id == row.id).values(values))
            jobs.append(_job(row, attempts, now, max_wait_s))
        return jobs


def _apart(rows: Sequence[Any], owner: str) -> Sequence[Any]:
    """Take a series that failed before by itself: should it kill its worker, no other is counted as failed with it."""
    if rows and _has_failed(rows[0], owner):
        return rows[:1]
    return [row for row in rows if not _has_failed(row, owner)]


def _has_failed(row: Any, owner: str) -> bool:
    return row.attempts > 0 or _was_left(row, owner)


def _was_left(row: Any, owner: str) -> bool:
    """Its holder vanished. A lease of our own is left from when the database was locked, and is no failure."""
    return row.lease_owner not in (None, owner)


def _claimable(owner: str, now: float) -> Any:
    waiting = exists().where(
        InstanceRow.series_id == SeriesRow.id, InstanceRow.state == InstanceState.RECEIVED, InstanceRow.current
    )
    return (
        select(SeriesRow, StudyRow.study_instance_uid)
        .join(StudyRow, StudyRow.id == SeriesRow.study_id)
        .where(
            SeriesRow.state.in_(_OPEN),
            SeriesRow.not_before <= now,
            # who claims holds nothing: a lease of its own is left from when the database was locked
            or_(
                SeriesRow.lease_expires_at.is_(None),
                SeriesRow.lease_expires_at < now,
                SeriesRow.lease_owner == owner,
            ),
            or_(SeriesRow.due_at <= now, waiting),
        )
        .order_by(SeriesRow.first_received_at)
    )


def _job(row: Any, attempts: int, now: float, max_wait_s: float) -> SeriesJob:
    return SeriesJob(
        id=row.id,
        study_instance_uid=row.study_instance_uid,
        series_instance_uid=row.series_instance_uid,
        modality=row.modality,
        calling_ae_title=row.calling_ae_title,
        remote_address=row.remote_address,
        attempts=attempts,
        first_received_at=datetime.fromtimestamp(row.first_received_at, UTC),
        last_received_at=datetime.fromtimestamp(row.last_received_at, UTC),
        due=row.due_at <= now,
        last_chance=row.last_received_at + max_wait_s <= now,
    )


def waiting_instances(database: Database, series_id: int, limit: int) -> list[StoredInstance]:
    """List current instances that are to be decoded, in their order of arrival."""
    with database.reading() as connection:
        rows = connection.execute(
            select(InstanceRow.id, InstanceRow.sop_instance_uid, InstanceRow.sop_class_uid, InstanceRow.path)
            .where(
                InstanceRow.series_id == series_id,
                InstanceRow.state == InstanceState.RECEIVED,
                InstanceRow.current,
                InstanceRow.path.is_not(None),
            )
            .order_by(InstanceRow.id)
            .limit(limit)
        )
        return [_stored(row) for row in rows]


def save_scores(
    database: Database,
    job: SeriesJob,
    owner: str,
    scored: Sequence[ScoredInstance],
    *,
    model_sha256: str,
    lease_s: float,
) -> bool:
    """Checkpoint what was decoded and scored, and renew the lease. False: the lease is no longer ours."""
    with database.writing() as connection:
        if not _renew(connection, job.id, owner, lease_s):
            return False
        replaced = _replaced(connection, [one.instance_id for one in scored])
        for one in scored:
            if one.instance_id in replaced:
                continue
            _save_instance(connection, one)
            connection.execute(delete(PlaneRow).where(PlaneRow.instance_id == one.instance_id))
            rows = [_plane_values(job.id, one.instance_id, plane, model_sha256) for plane in one.planes]
            if rows:
                connection.execute(insert(PlaneRow), rows)
        return True


def _replaced(connection: Connection, instance_ids: Sequence[int]) -> set[int]:
    """Tell which instances were sent again with other bytes while these were scored: nothing may rest on them."""
    older = select(InstanceRow.id).where(InstanceRow.id.in_(instance_ids), ~InstanceRow.current)
    return set(connection.execute(older).scalars())


def _save_instance(connection: Connection, one: ScoredInstance) -> None:
    values = {
        "state": one.state,
        "reason": one.reason.name if one.reason else None,
        "detail": one.detail or None,
        "facts": facts_to_json(one.facts),
    }
    connection.execute(update(InstanceRow).where(InstanceRow.id == one.instance_id).values(values))


def _plane_values(series_id: int, instance_id: int, plane: PlaneScore, model_sha256: str) -> dict[str, Any]:
    return {
        "series_id": series_id,
        "instance_id": instance_id,
        "frame": plane.frame,
        "position_mm": plane.position_mm,
        "logits": list(plane.logits),
        "embedding": plane.embedding.astype("<f2").tobytes(),
        "model_sha256": model_sha256,
    }


def load_content(database: Database, series_id: int, model_sha256: str | None) -> SeriesContent:
    """Read everything known of a series. Planes of another model than ``model_sha256`` are left out."""
    with database.reading() as connection:
        rows = connection.execute(
            select(InstanceRow).where(InstanceRow.series_id == series_id, InstanceRow.current).order_by(InstanceRow.id)
        ).all()
        planes = connection.execute(
            select(PlaneRow, InstanceRow.sop_instance_uid)
            .join(InstanceRow, InstanceRow.id == PlaneRow.instance_id)
            .where(PlaneRow.series_id == series_id, PlaneRow.model_sha256 == model_sha256)
        ).all()
    declined = [row.reason for row in rows if row.state == InstanceState.NOT_NEEDED and row.reason]
    return SeriesContent(
        facts=tuple(one for row in rows for one in facts_from_json(row.facts)),
        planes=tuple(_plane(row) for row in planes),
        instances=tuple(_stored(row) for row in rows if row.path is not None),
        unreadable=sum(row.state == InstanceState.UNREADABLE for row in rows),
        declined=tuple(NotAnalysedReason[name] for name in declined),
        waiting=sum(row.state == InstanceState.RECEIVED for row in rows),
    )


def _plane(row: Any) -> PlaneScore:
    return PlaneScore(
        sop_instance_uid=row.sop_instance_uid,
        frame=row.frame,
        position_mm=row.position_mm,
        logits=tuple(row.logits),
        embedding=np.frombuffer(row.embedding, dtype="<f2"),
    )


def _stored(row: Any) -> StoredInstance:
    return StoredInstance(row.id, row.sop_instance_uid, row.sop_class_uid, row.path)


def close_series(database: Database, job: SeriesJob, owner: str, *, lease_s: float) -> bool:
    """Close a due series for analysis. False: the lease was lost, or a slice came and it is not due any more."""
    now = time.time()
    with database.writing() as connection:
        if not _renew(connection, job.id, owner, lease_s):
            return False
        waiting = select(InstanceRow.id).where(
            InstanceRow.series_id == job.id, InstanceRow.state == InstanceState.RECEIVED, InstanceRow.current
        )
        if connection.execute(waiting.limit(1)).first():
            return False
        closed = connection.execute(
            update(SeriesRow)
            .where(SeriesRow.id == job.id, SeriesRow.state.in_(_OPEN), SeriesRow.due_at <= now)
            .values(state=SeriesState.COMPLETE, closed_at=now)
        )
        return closed.rowcount == 1


def postpone(database: Database, job: SeriesJob, owner: str, max_wait_s: float) -> None:
    """Wait for the slices that are missing, until ``max_wait_s`` after the last one that came."""
    with database.writing() as connection:
        connection.execute(
            update(SeriesRow)
            .where(SeriesRow.id == job.id, SeriesRow.lease_owner == owner, SeriesRow.state.in_(_OPEN))
            .values(state=SeriesState.RECEIVING, closed_at=None, due_at=SeriesRow.last_received_at + max_wait_s)
        )


def release_lease(database: Database, series_ids: Sequence[int], owner: str) -> None:
    """Give series back after a good step: their attempts start again from zero."""
    with database.writing() as connection:
        connection.execute(
            update(SeriesRow)
            .where(SeriesRow.id.in_(series_ids), SeriesRow.lease_owner == owner)
            .values(lease_owner=None, lease_expires_at=None, attempts=0)
        )


def fail_attempt(database: Database, job: SeriesJob, owner: str, error: str, *, retry_s: float) -> bool:
    """Count a failed attempt. True: it was the last one, and the series is FAILED."""
    with database.writing() as connection:
        mine = _is_mine(job.id, owner)
        if not connection.execute(select(SeriesRow.id).where(mine)).first():
            return False  # another works on it now, or it was queued again
        attempts = job.attempts + 1
        if attempts < MAXIMUM_ATTEMPTS:
            values = {"attempts": attempts, "not_before": time.time() + retry_s, "detail": error}
            connection.execute(
                update(SeriesRow).where(mine).values(values | {"lease_owner": None, "lease_expires_at": None})
            )
            return False
        _give_up(connection, job.id, attempts, error)
        return True


def _give_up(connection: Connection, series_id: int, attempts: int, error: str) -> None:
    connection.execute(
        update(SeriesRow)
        .where(SeriesRow.id == series_id)
        .values(
            state=SeriesState.FAILED,
            reason=NotAnalysedReason.ANALYSIS_FAILED.name,
            detail=error,
            attempts=attempts,
            head_expected=SeriesRow.modality == "CT",
            lease_owner=None,
            lease_expires_at=None,
        )
    )


def _renew(connection: Connection, series_id: int, owner: str, lease_s: float) -> bool:
    renewed = connection.execute(
        update(SeriesRow).where(_is_mine(series_id, owner)).values(lease_expires_at=time.time() + lease_s)
    )
    return renewed.rowcount == 1


def _is_mine(series_id: int, owner: str) -> ColumnElement[bool]:
    return and_(SeriesRow.id == series_id, SeriesRow.lease_owner == owner)
