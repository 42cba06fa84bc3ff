"""The worker's side: claim a series, close it, or give it back."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Final

from sqlalchemy import (
    ColumnElement,
    Connection,
    Float,
    Integer,
    Select,
    String,
    and_,
    bindparam,
    case,
    or_,
    select,
    text,
    update,
)

from ich_node.database import Database, InstanceRow, SeriesRow, StudyRow
from ich_node.database.tables import OPEN
from ich_node.job_queue.drift import keep_failure
from ich_node.job_queue.quarantine import wake_next_best
from ich_node.records import OPEN_SERIES, InstanceState, NotAnalysedReason, SeriesJob, SeriesState

MAXIMUM_ATTEMPTS = 3
_RECHECK_S = 0.5


def _claimable() -> Select[*tuple[Any, ...]]:
    """Find what the owner may take now, best first."""
    now, owner = bindparam("now", type_=Float), bindparam("owner", type_=String)
    # no EXISTS: PostgreSQL may make a table of all instances that wait for it, and ask that
    first_waiting = select(InstanceRow.id).where(
        InstanceRow.series_id == SeriesRow.id, InstanceRow.state == InstanceState.RECEIVED, InstanceRow.current
    )
    waiting = first_waiting.limit(1).scalar_subquery().is_not(None)
    return (
        select(SeriesRow, StudyRow.study_instance_uid)
        .join(StudyRow, StudyRow.id == SeriesRow.study_id)
        .where(
            text(OPEN),
            SeriesRow.not_before <= now,
            # who claims holds nothing: a lease of its own is left from when the database was locked
            or_(
                SeriesRow.lease_expires_at.is_(None),
                SeriesRow.lease_expires_at < now,
                SeriesRow.lease_owner == owner,
            ),
            or_(SeriesRow.due_at <= now, SeriesRow.planes_waiting > 0, waiting),
        )
        .order_by(SeriesRow.old, SeriesRow.priority.desc(), SeriesRow.first_received_at)
    )


# Built once: to build one takes as long as to run it, and claims come ten times a second.
_ANY: Final = _claimable().with_only_columns(SeriesRow.id, maintain_column_froms=True).limit(1)
_FREE: Final = (
    _claimable()
    .limit(bindparam("most", type_=Integer))
    # who holds a row works on its series, or is about to: it is left to them
    .with_for_update(skip_locked=True, key_share=True, of=SeriesRow)
)
_LEASE: Final = (
    update(SeriesRow)
    .where(SeriesRow.id == bindparam("series_id"))
    .values(lease_owner=bindparam("owner"), lease_expires_at=bindparam("until"), attempts=bindparam("counted"))
)


def claim_series(database: Database, owner: str, *, lease_s: float, max_wait_s: float, limit: int) -> list[SeriesJob]:
    """Take the lease of up to ``limit`` series that have slices waiting or are due: new studies before old
    ones, then by priority, then the longest waiting.

    A lease that ran out counts as a failed attempt of its holder; after three, the series is FAILED. A series with
    failed attempts is handed out alone, so that it takes no other down with it.
    """
    now = time.time()
    with database.reading() as connection:  # most polls find nothing: they need not queue for the write lock
        if not connection.execute(_ANY, {"owner": owner, "now": now}).first():
            return []
    with database.claiming() as connection:
        free = connection.execute(_FREE, {"owner": owner, "now": now, "most": limit}).all()
        taken = [(row, row.attempts + _was_left(row, owner)) for row in _apart(free, owner)]
        for row, attempts in taken:
            lease = {"series_id": row.id, "owner": owner, "until": now + lease_s, "counted": attempts}
            connection.execute(_LEASE, lease)
    for row, attempts in taken:
        if attempts >= MAXIMUM_ATTEMPTS:
            _end_claimed(database, row.id, owner, attempts)
    return [_job(row, attempts, now, max_wait_s) for row, attempts in taken if attempts < MAXIMUM_ATTEMPTS]


def _end_claimed(database: Database, series_id: int, owner: str, attempts: int) -> None:
    """Give a series up that was claimed once too often; a claim may not write what others wait for."""
    with database.writing() as connection:
        if renew(connection, series_id, owner, 0.0):
            _give_up(connection, series_id, attempts, "the worker died on it or failed three times")


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


def _job(row: Any, attempts: int, now: float, max_wait_s: float) -> SeriesJob:
    return SeriesJob(
        id=row.id,
        study_id=row.study_id,
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
        counted=row.counted_at is not None and row.counted_at >= row.last_received_at,
    )


def close_series(database: Database, job: SeriesJob, owner: str, *, lease_s: float) -> bool:
    """Close a due series for analysis. False: the lease was lost, or a slice came and it is not due any more."""
    now = time.time()
    with database.writing() as connection:
        if not renew(connection, job.id, owner, lease_s):
            return False
        waiting = select(InstanceRow.id).where(
            InstanceRow.series_id == job.id, InstanceRow.state == InstanceState.RECEIVED, InstanceRow.current
        )
        if connection.execute(waiting.limit(1)).first():
            return False
        closed = connection.execute(
            update(SeriesRow)
            .where(SeriesRow.id == job.id, SeriesRow.state.in_(OPEN_SERIES), SeriesRow.due_at <= now)
            .values(state=SeriesState.COMPLETE, closed_at=now)
        )
        return closed.rowcount == 1


def postpone(database: Database, job: SeriesJob, owner: str, wait_s: float) -> None:
    """Wait for what is missing, until ``wait_s`` after the last slice; look again soon where that is over."""
    soonest = time.time() + _RECHECK_S
    until = SeriesRow.last_received_at + wait_s
    due_at = case((until > soonest, until), else_=soonest)
    with database.writing() as connection:
        connection.execute(
            update(SeriesRow)
            .where(SeriesRow.id == job.id, SeriesRow.lease_owner == owner, SeriesRow.state.in_(OPEN_SERIES))
            .values(state=SeriesState.RECEIVING, closed_at=None, due_at=due_at)
        )


def release_lease(database: Database, series_ids: Sequence[int], owner: str) -> None:
    """Give series back after a good step: their attempts start again from zero."""
    with database.writing() as connection:
        connection.execute(
            update(SeriesRow)
            .where(SeriesRow.id.in_(series_ids), SeriesRow.lease_owner == owner)
            .values(lease_owner=None, lease_expires_at=None, attempts=0)
        )


def give_back(database: Database, owner: str) -> None:
    """Give back every series that was claimed, without counting an attempt: none of them was at fault."""
    with database.writing() as connection:
        mine = update(SeriesRow).where(SeriesRow.lease_owner == owner)
        connection.execute(mine.values(lease_owner=None, lease_expires_at=None))


def let_others_go_first(database: Database, job: SeriesJob, owner: str, why: str, *, wait_s: float) -> None:
    """Note on which series the device failed. No attempt is counted; should it fail so again, the series waits."""
    again = case((SeriesRow.detail == why, time.time() + wait_s), else_=SeriesRow.not_before)
    with database.writing() as connection:
        mine = update(SeriesRow).where(_is_mine(job.id, owner))
        connection.execute(mine.values(not_before=again, detail=why))


def fail_attempt(database: Database, job: SeriesJob, owner: str, error: str, *, retry_s: float) -> bool:
    """Count a failed attempt. True: it was the last one, and the series is FAILED."""
    with database.writing() as connection:
        mine = _is_mine(job.id, owner)
        if not connection.execute(select(SeriesRow.id).where(mine).with_for_update()).first():
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
            planes_waiting=0,
            lease_owner=None,
            lease_expires_at=None,
        )
    )
    keep_failure(connection, series_id, time.time())
    wake_next_best(connection, series_id)


def renew(connection: Connection, series_id: int, owner: str, lease_s: float) -> bool:
    """Renew the lease of a series. False: it is no longer ours."""
    renewed = connection.execute(
        update(SeriesRow).where(_is_mine(series_id, owner)).values(lease_expires_at=time.time() + lease_s)
    )
    return renewed.rowcount == 1


def _is_mine(series_id: int, owner: str) -> ColumnElement[bool]:
    return and_(SeriesRow.id == series_id, SeriesRow.lease_owner == owner)
