"""What the worker saves on its way: what was read, and what was scored."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, delete, insert, or_, select, update

from ich_node.database import Database, InstanceRow, PlaneRow, SeriesRow, is_one_of
from ich_node.job_queue.facts import facts_from_json, facts_to_json, tissue_to_json
from ich_node.job_queue.quarantine import quarantine
from ich_node.job_queue.work import renew
from ich_node.records import (
    InstanceState,
    NotAnalysedReason,
    PlaneScore,
    ReadInstance,
    SeriesJob,
    SliceFacts,
    SliceKey,
    StoredInstance,
)

WhyUnreadable = tuple[NotAnalysedReason, str]


def waiting_instances(
    database: Database, series_id: int, limit: int, among: Sequence[int] | None = None
) -> list[StoredInstance]:
    """List current instances that are to be read, in their order of arrival, with the version before them.

    Args:
        among: instances to choose from; None: all.
    """
    chosen = () if among is None else (is_one_of(InstanceRow.id, among),)
    with database.reading() as connection:
        rows = connection.execute(
            select(InstanceRow.id, InstanceRow.sop_instance_uid, InstanceRow.sop_class_uid, InstanceRow.path)
            .where(
                InstanceRow.series_id == series_id,
                InstanceRow.state == InstanceState.RECEIVED,
                InstanceRow.current,
                InstanceRow.path.is_not(None),
                *chosen,
            )
            .order_by(InstanceRow.id)
            .limit(limit)
        ).all()
        return [
            StoredInstance(
                row.id, row.sop_instance_uid, row.sop_class_uid, row.path, _older_path(connection, series_id, row)
            )
            for row in rows
        ]


def _older_path(connection: Connection, series_id: int, row: Any) -> str | None:
    """File of the newest earlier version that could be read."""
    older = select(InstanceRow.path).where(
        InstanceRow.series_id == series_id,
        InstanceRow.sop_instance_uid == row.sop_instance_uid,
        InstanceRow.id < row.id,
        InstanceRow.path.is_not(None),
        InstanceRow.state.in_((InstanceState.DECODED, InstanceState.RECEIVED)),
    )
    return connection.execute(older.order_by(InstanceRow.id.desc()).limit(1)).scalar()


def save_read(database: Database, job: SeriesJob, owner: str, read: Sequence[ReadInstance], *, lease_s: float) -> bool:
    """Checkpoint what was read, and renew the lease. False: the series is no longer ours.

    An object that shows another picture than its version before puts the series into quarantine.
    """
    with database.writing() as connection:
        if not renew(connection, job.id, owner, lease_s):
            return False
        for one in read:
            _save_instance(connection, one)
        _note_patient(connection, job.id, read)
        others = [one.instance_id for one in read if one.other_picture]
        if others and not _is_released(connection, job.id, others):
            images = "1 image" if len(others) == 1 else f"{len(others)} images"
            quarantine(connection, job.id, NotAnalysedReason.OTHER_PIXELS, images)
            return False
        return True


def _note_patient(connection: Connection, series_id: int, read: Sequence[ReadInstance]) -> None:
    """Note on the series whose it is, as the image read last says: by that, earlier studies are found."""
    marks = next((one.marks for one in reversed(read) if one.marks.patient_id), None)
    if marks is None:
        return
    values = {"patient_mark": marks.patient_id, "birth_mark": marks.patient_birth_date or None}
    other = or_(*(getattr(SeriesRow, name).is_distinct_from(value) for name, value in values.items()))
    connection.execute(update(SeriesRow).where(SeriesRow.id == series_id, other).values(values))


def _is_released(connection: Connection, series_id: int, instance_ids: Sequence[int]) -> bool:
    released = connection.execute(select(SeriesRow.released_instance_id).where(SeriesRow.id == series_id)).scalar()
    return released is not None and max(instance_ids) <= released


def _save_instance(connection: Connection, one: ReadInstance) -> None:
    values = {
        "state": one.state,
        "reason": one.reason.name if one.reason else None,
        "detail": one.detail or None,
        "facts": facts_to_json(one.facts),
        "marks": dataclasses.asdict(one.marks),
    }
    # what was taken back meanwhile keeps what was said of it then
    connection.execute(
        update(InstanceRow)
        .where(InstanceRow.id == one.instance_id, InstanceRow.state == InstanceState.RECEIVED)
        .values(values)
    )


def save_planes(
    database: Database,
    job: SeriesJob,
    owner: str,
    planes: Sequence[PlaneScore],
    *,
    stale: Sequence[int],
    waiting: int,
    model_sha256: str,
    lease_s: float,
) -> bool:
    """Checkpoint scored planes, and renew the lease. False: the series is no longer ours.

    Args:
        stale: numbers of planes that these replace.
        waiting: how many planes are ready and still to be scored.
    """
    with database.writing() as connection:
        if not renew(connection, job.id, owner, lease_s):
            return False
        if stale:
            connection.execute(delete(PlaneRow).where(PlaneRow.series_id == job.id, is_one_of(PlaneRow.id, stale)))
        if planes:
            connection.execute(insert(PlaneRow), [_plane_values(job.id, plane, model_sha256) for plane in planes])
        connection.execute(update(SeriesRow).where(SeriesRow.id == job.id).values(planes_waiting=waiting))
        return True


def _plane_values(series_id: int, plane: PlaneScore, model_sha256: str) -> dict[str, Any]:
    return {
        "series_id": series_id,
        "members": [[one.sop_instance_uid, one.frame, one.position_mm] for one in plane.members],
        "position_mm": plane.position_mm,
        "tissue": tissue_to_json(plane.tissue),
        "logits": list(plane.logits),
        "embedding": plane.embedding.astype("<f2").tobytes(),
        "model_sha256": model_sha256,
    }


def mark_unreadable(database: Database, series_id: int, slices: Mapping[SliceKey, WhyUnreadable]) -> None:
    """Note slices whose pixels turned out to be unreadable; an instance without any other slice is UNREADABLE."""
    with database.writing() as connection:
        rows = connection.execute(
            select(InstanceRow.id, InstanceRow.facts).where(
                InstanceRow.series_id == series_id,
                InstanceRow.current,
                is_one_of(InstanceRow.sop_instance_uid, {uid for uid, _ in slices}),
            )
        ).all()
        for row in rows:
            facts = tuple(_with_reason(one, slices) for one in facts_from_json(row.facts))
            values: dict[str, Any] = {"facts": facts_to_json(facts)}
            if all(one.reason is not None for one in facts):
                reason, detail = next(slices[one.key] for one in facts if one.key in slices)
                values |= {"state": InstanceState.UNREADABLE, "reason": reason.name, "detail": detail or None}
            connection.execute(update(InstanceRow).where(InstanceRow.id == row.id).values(values))


def _with_reason(one: SliceFacts, slices: Mapping[SliceKey, WhyUnreadable]) -> SliceFacts:
    return dataclasses.replace(one, reason=slices[one.key][0]) if one.key in slices else one
