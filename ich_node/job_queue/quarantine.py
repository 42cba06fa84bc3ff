"""What may not be trusted, or was taken back: quarantine, release, rejection, and what follows for the study."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, delete, func, insert, or_, select, update

from ich_node.database import Database, DeliveryRow, InstanceRow, PlaneRow, RejectionRow, SeriesRow, StudyRow
from ich_node.records import (
    DeliveryState,
    InstanceState,
    NotAnalysedReason,
    RejectionNote,
    SeriesState,
)

_UNSENT: Final = (DeliveryState.PENDING, DeliveryState.SENDING, DeliveryState.HELD, DeliveryState.DEAD)
_FREE: Final = {"lease_owner": None, "lease_expires_at": None}


def quarantine(connection: Connection, series_id: int, reason: NotAnalysedReason, detail: str) -> None:
    """Take a series out of analysis until a person has looked; what was to be sent of it is not sent any more."""
    values = {"state": SeriesState.QUARANTINED, "reason": reason.name, "detail": detail or None, "planes_waiting": 0}
    connection.execute(update(SeriesRow).where(SeriesRow.id == series_id).values(values | _FREE))
    lose_result(connection, series_id)


def quarantine_series(
    database: Database, series_id: int, owner: str, reason: NotAnalysedReason, detail: str = ""
) -> bool:
    """Quarantine a series that we hold. False: it is no longer ours."""
    with database.writing() as connection:
        mine = select(SeriesRow.id).where(SeriesRow.id == series_id, SeriesRow.lease_owner == owner)
        if not connection.execute(mine.with_for_update()).first():
            return False
        quarantine(connection, series_id, reason, detail)
        return True


def lose_result(connection: Connection, series_id: int) -> None:
    """Note that a series has no result any more: its study's answer is withdrawn, or others are chosen among again."""
    if not doubt_answer(connection, series_id):
        wake_next_best(connection, series_id)  # a withdrawal wakes them itself: the answer goes first


def doubt_answer(connection: Connection, series_id: int) -> bool:
    """Stop what is on its way of a study whose answer rests on this series, until it is clear whether it holds.

    A report that says that there is no result, or none any more, goes out all the same: it holds.
    False: no answer rests on it.
    """
    study_id = connection.execute(
        select(StudyRow.id).where(StudyRow.rests_on_series_id == series_id, gives_a_result())
    ).scalar()
    if study_id is None:
        return False
    connection.execute(update(StudyRow).where(StudyRow.id == study_id).values(doubted=True))
    supersede_unsent(connection, study_id)
    return True


def gives_a_result() -> ColumnElement[bool]:
    """Tell studies whose current report is on a finding, or on a model that gives none, from those without a result."""
    return or_(StudyRow.triage.is_not(None), StudyRow.reason == NotAnalysedReason.UNTRAINED_MODEL.name)


def supersede_unsent(connection: Connection, study_id: int) -> None:
    """Keep what was not sent yet of a study from being sent; what is on its way keeps its lease until it arrives."""
    connection.execute(
        update(DeliveryRow)
        .where(DeliveryRow.study_id == study_id, DeliveryRow.state.in_(_UNSENT))
        .values(state=DeliveryState.SUPERSEDED, finished_at=time.time())
    )


def wake_next_best(connection: Connection, series_id: int, *, concluded_too: bool = False) -> None:
    """Let the other series of a study be chosen among again, since this one has no result any more.

    What they say is compared anew, even where each says what it said before.
    """
    study_id = select(SeriesRow.study_id).where(SeriesRow.id == series_id).scalar_subquery()
    not_chosen = (SeriesRow.state == SeriesState.NOT_ANALYSED) & (
        SeriesRow.reason == NotAnalysedReason.OTHER_SERIES_CHOSEN.name
    )
    wanted: ColumnElement[bool] = not_chosen
    if concluded_too:
        wanted = or_(not_chosen, SeriesRow.state == SeriesState.CONCLUDED)
    connection.execute(
        update(SeriesRow)
        .where(SeriesRow.study_id == study_id, SeriesRow.id != series_id, wanted)
        .values(_open_now() | {"fingerprint": None})
    )


def release_quarantined(database: Database, uid: str) -> int:
    """Trust the quarantined series of a study or series UID as they are; return how many.

    They are analysed anew, and their report is a new revision.
    """
    with database.writing() as connection:
        ids = _quarantined(connection, uid)
        for series_id in ids:
            newest = select(func.max(InstanceRow.id)).where(InstanceRow.series_id == series_id).scalar_subquery()
            connection.execute(delete(PlaneRow).where(PlaneRow.series_id == series_id))
            values = _open_now() | {"fingerprint": None, "released_instance_id": newest}
            connection.execute(update(SeriesRow).where(SeriesRow.id == series_id).values(values))
        return len(ids)


def reject_quarantined(database: Database, uid: str) -> int:
    """Give up the quarantined series of a study or series UID; return how many."""
    with database.writing() as connection:
        ids = _quarantined(connection, uid)
        reason = NotAnalysedReason.REJECTED_BY_PERSON
        for series_id in ids:
            _reject_series(connection, series_id, reason)
        return len(ids)


def reject_quarantined_of(connection: Connection, study_id: int) -> None:
    """Give up the quarantined series of a study within a transaction."""
    mine = select(SeriesRow.id).where(SeriesRow.study_id == study_id, SeriesRow.state == SeriesState.QUARANTINED)
    for series_id in connection.execute(mine).scalars().all():
        _reject_series(connection, series_id, NotAnalysedReason.REJECTED_BY_PERSON)


def reject_instances(database: Database, note: RejectionNote) -> list[int]:
    """Take back the instances that a rejection note names, those that are yet to come too.

    A series that loses some is analysed again without them; one that loses all is REJECTED. Returns the numbers of
    the series that were touched.
    """
    now = time.time()
    with database.writing() as connection:
        _remember(connection, note, now)
        named = InstanceRow.sop_instance_uid.in_(note.sop_instance_uids), InstanceRow.current
        touched = list(connection.execute(select(InstanceRow.series_id).where(*named).distinct()).scalars())
        gone = {"current": False, "state": InstanceState.NOT_NEEDED, "reason": note.reason.name}
        connection.execute(update(InstanceRow).where(*named).values(gone))
        for series_id in touched:
            if not reject_if_empty(connection, series_id, note.reason):
                _reopen(connection, series_id)
        return touched


def reject_if_empty(connection: Connection, series_id: int, reason: NotAnalysedReason) -> bool:
    """Reject a series all of whose instances were taken back. False: it has others."""
    left = select(InstanceRow.id).where(InstanceRow.series_id == series_id, InstanceRow.current).limit(1)
    if connection.execute(left).first() is not None:
        return False
    _reject_series(connection, series_id, reason)
    return True


def _remember(connection: Connection, note: RejectionNote, now: float) -> None:
    known = select(RejectionRow.sop_instance_uid).where(RejectionRow.sop_instance_uid.in_(note.sop_instance_uids))
    held = set(connection.execute(known).scalars())
    rows = [
        {"sop_instance_uid": uid, "reason": note.reason.name, "received_at": now}
        for uid in note.sop_instance_uids
        if uid not in held
    ]
    if rows:
        connection.execute(insert(RejectionRow), rows)


def _reject_series(connection: Connection, series_id: int, reason: NotAnalysedReason) -> None:
    values = {"state": SeriesState.REJECTED, "reason": reason.name, "detail": None, "planes_waiting": 0}
    connection.execute(update(SeriesRow).where(SeriesRow.id == series_id).values(values | _FREE))
    lose_result(connection, series_id)


def _reopen(connection: Connection, series_id: int) -> None:
    connection.execute(
        update(SeriesRow)
        .where(SeriesRow.id == series_id, SeriesRow.state != SeriesState.QUARANTINED)
        .values(_open_now())
    )
    doubt_answer(connection, series_id)


def _quarantined(connection: Connection, uid: str) -> Sequence[int]:
    found = (
        select(SeriesRow.id)
        .join(StudyRow, StudyRow.id == SeriesRow.study_id)
        .where(
            SeriesRow.state == SeriesState.QUARANTINED,
            or_(StudyRow.study_instance_uid == uid, SeriesRow.series_instance_uid == uid),
        )
    )
    return connection.execute(found).scalars().all()


def _open_now() -> dict[str, Any]:
    return {
        "state": SeriesState.RECEIVING, "due_at": time.time(), "not_before": 0.0, "attempts": 0, "reason": None,
        "detail": None, "closed_at": None,
    } | _FREE  # fmt: skip
