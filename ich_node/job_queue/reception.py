"""Enter what was received: instance, series and study, and when the series is due."""

from __future__ import annotations

import time
from typing import Any, Final

from sqlalchemy import Connection, CursorResult, bindparam, delete, insert, select, update

from ich_node.database import Database, InstanceRow, PlaneRow, ResultRow, SeriesRow, StudyRow
from ich_node.records import InstanceState, ReceivedInstance, Reception, SeriesState

# Statements that run for every slice are built once: building one takes as long as running it.
_LOOK_UP: Final = select(
    select(InstanceRow.id)
    .where(InstanceRow.sop_instance_uid == bindparam("uid"), InstanceRow.sha256 == bindparam("sha256"))
    .where(InstanceRow.path.is_not(None))
    .scalar_subquery(),
    select(ResultRow.id).where(ResultRow.sop_instance_uid == bindparam("uid")).scalar_subquery(),
)
_FIND_SERIES: Final = (
    select(SeriesRow.id, SeriesRow.images_deleted_at)
    .join(StudyRow, StudyRow.id == SeriesRow.study_id)
    .where(StudyRow.study_instance_uid == bindparam("study"), SeriesRow.series_instance_uid == bindparam("series"))
)
_FIND_VERSIONS: Final = select(
    InstanceRow.id, InstanceRow.sha256, InstanceRow.path, InstanceRow.series_id, InstanceRow.current
).where(InstanceRow.sop_instance_uid == bindparam("uid"))
_ADD_INSTANCE: Final = insert(InstanceRow)
_REOPEN_SERIES: Final = (
    update(SeriesRow)
    .where(SeriesRow.id == bindparam("series_id"), SeriesRow.state != SeriesState.QUARANTINED)
    .values(
        last_received_at=bindparam("now"),
        state=SeriesState.RECEIVING,
        due_at=bindparam("due"),
        attempts=0,
        not_before=0.0,
        reason=None,
        detail=None,
        closed_at=None,
    )
)


def look_up(database: Database, sop_instance_uid: str, sha256: str) -> Reception | None:
    """Say whether an object needs no storing, because we made it or hold these very bytes; None where it does."""
    with database.reading() as connection:
        held, result_id = connection.execute(_LOOK_UP, {"uid": sop_instance_uid, "sha256": sha256}).one()
    if held is not None:
        return Reception.DUPLICATE
    if result_id is None:
        return None
    with database.writing() as connection:
        counted = {ResultRow.returned_count: ResultRow.returned_count + 1}
        connection.execute(update(ResultRow).where(ResultRow.id == result_id).values(counted))
    return Reception.OWN_RESULT


def register_instance(
    database: Database, received: ReceivedInstance, *, max_wait_s: float, analysed: bool
) -> tuple[Reception, int]:
    """Enter one instance whose bytes are safe; reopen its series; return what it meant and the series' id.

    Args:
        max_wait_s: the series is due after this time, unless its association is released before.
        analysed: False for storage classes that are kept but never decoded.
    """
    return database.write_together(lambda connection: _register(connection, received, max_wait_s, analysed))


def _register(
    connection: Connection, received: ReceivedInstance, max_wait_s: float, analysed: bool
) -> tuple[Reception, int]:
    now = time.time()
    series_id, dormant = _series_of(connection, received, now, now + max_wait_s)
    versions = connection.execute(_FIND_VERSIONS, {"uid": received.sop_instance_uid}).all()
    known = next((one for one in versions if one.sha256 == received.sha256), None)
    if known is not None and known.path is not None:
        return Reception.DUPLICATE, series_id
    if known is not None:
        _restore(connection, known.id, received)
        _touch(connection, series_id, now)
        return Reception.KEPT_ONLY, series_id
    older = [one.id for one in versions if one.series_id == series_id and one.current]
    _supersede(connection, older)
    wanted = analysed and not dormant
    _add(connection, series_id, received, now, InstanceState.RECEIVED if wanted else InstanceState.NOT_NEEDED)
    if dormant:
        _touch(connection, series_id, now)
        return Reception.KEPT_ONLY, series_id
    _reopen(connection, series_id, now, now + max_wait_s)
    return (Reception.VERSION if older else Reception.NEW), series_id


def release_series(database: Database, series_ids: set[int], quiet_s: float) -> None:
    """Let series close ``quiet_s`` after their last slice: the association that sent them was released."""
    with database.writing() as connection:
        connection.execute(
            update(SeriesRow)
            .where(SeriesRow.id.in_(series_ids), SeriesRow.state == SeriesState.RECEIVING)
            .values(due_at=SeriesRow.last_received_at + quiet_s)
        )


def _series_of(connection: Connection, received: ReceivedInstance, now: float, due_at: float) -> tuple[int, bool]:
    """Find or make the series. The flag says that its images were deleted: new ones start nothing."""
    uids = {"study": received.study_instance_uid, "series": received.series_instance_uid}
    found = connection.execute(_FIND_SERIES, uids).first()
    if found is not None:
        return found.id, found.images_deleted_at is not None
    made = connection.execute(
        insert(SeriesRow).values(
            study_id=_study_of(connection, received.study_instance_uid, now),
            series_instance_uid=received.series_instance_uid,
            modality=received.modality,
            state=SeriesState.RECEIVING,
            due_at=due_at,
            first_received_at=now,
            last_received_at=now,
            calling_ae_title=received.calling_ae_title,
            remote_address=received.remote_address,
        )
    )
    return _new_id(made), False


def _study_of(connection: Connection, study_instance_uid: str, now: float) -> int:
    known = connection.execute(select(StudyRow.id).where(StudyRow.study_instance_uid == study_instance_uid)).scalar()
    if known is not None:
        return known
    made = connection.execute(insert(StudyRow).values(study_instance_uid=study_instance_uid, created_at=now))
    return _new_id(made)


def _new_id(made: CursorResult[Any]) -> int:
    key = made.inserted_primary_key
    assert key is not None, "an insert of one row has a key"
    return int(key[0])


def _supersede(connection: Connection, older: list[int]) -> None:
    if older:
        connection.execute(delete(PlaneRow).where(PlaneRow.instance_id.in_(older)))
        connection.execute(update(InstanceRow).where(InstanceRow.id.in_(older)).values(current=False))


def _add(connection: Connection, series_id: int, received: ReceivedInstance, now: float, state: InstanceState) -> None:
    values = {
        "series_id": series_id,
        "sop_instance_uid": received.sop_instance_uid,
        "sop_class_uid": received.sop_class_uid,
        "transfer_syntax_uid": received.transfer_syntax_uid,
        "sha256": received.sha256,
        "size_bytes": received.size_bytes,
        "path": received.path,
        "state": state,
        "received_at": now,
    }
    connection.execute(_ADD_INSTANCE, values)


def _restore(connection: Connection, instance_id: int, received: ReceivedInstance) -> None:
    values = {"path": received.path, "state": InstanceState.NOT_NEEDED}
    connection.execute(update(InstanceRow).where(InstanceRow.id == instance_id).values(values))


def _reopen(connection: Connection, series_id: int, now: float, due_at: float) -> None:
    reopened = connection.execute(_REOPEN_SERIES, {"series_id": series_id, "now": now, "due": due_at})
    if not reopened.rowcount:
        _touch(connection, series_id, now)


def _touch(connection: Connection, series_id: int, now: float) -> None:
    """Note the arrival: the quiet time and the days of retention count from here."""
    connection.execute(update(SeriesRow).where(SeriesRow.id == series_id).values(last_received_at=now))
