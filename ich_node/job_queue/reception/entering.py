"""Enter what was received: instance, series and study, and when the series is due."""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any, Final, NamedTuple

from sqlalchemy import Connection, select, update

from ich_node.database import (
    Database,
    InstanceRow,
    ResultRow,
    SeriesRow,
    StudyRow,
)
from ich_node.job_queue.habits import has_as_many_as_ever
from ich_node.job_queue.leases import new_owner
from ich_node.job_queue.quarantine import quarantine, reject_if_empty
from ich_node.job_queue.reception.statements import (
    ADD_ASSOCIATION,
    ADD_INSTANCE,
    ADD_SERIES,
    ADD_STUDY,
    CLOSE_ASSOCIATION,
    FIND_REJECTION,
    FIND_SERIES,
    FIND_STUDY,
    FIND_STUDY_ROW,
    FIND_VERSIONS,
    HELD,
    LOOK_UP,
    MAY_CLOSE,
    RENEW_ASSOCIATION,
    REOPEN_SERIES,
    SENT,
    SET_DUE,
)
from ich_node.job_queue.self_tests import is_reserved_within
from ich_node.records import InstanceState, NotAnalysedReason, ReceivedInstance, Reception, SeriesState
from ich_node.records.self_tests import SELF_TEST_AE_TITLE

_RENEWED_EVERY_S: Final = 1.0


@dataclass(frozen=True, slots=True)
class SendingAssociation:
    """An association that sends; while it is open, it holds a lease on each series it has sent to."""

    name: str
    """Unlike any other's, on this host and all others."""
    owner: str
    """The receiver: see `new_owner`."""
    began: set[tuple[str, str]] = field(default_factory=set, compare=False)
    """Study and Series Instance UIDs of the series whose first image it sent."""


class Entered(NamedTuple):
    """What became of an instance, and where it belongs."""

    reception: Reception
    series_id: int
    study_id: int
    first: bool = False
    """Nothing was known of the series before."""


class _RehearsedError(Exception):
    """Undoes the transaction of a rehearsal."""


def rehearse(database: Database, received: ReceivedInstance, max_wait_s: float) -> None:
    """Enter an image and release its association, and undo all of it: the statements are made before an image comes.

    Processes that are started afterwards have them, too; the first image of each waited 17 ms for them.
    """
    association, now = SendingAssociation("rehearsal", new_owner()), time.time()
    with suppress(_RehearsedError), database.writing() as connection:
        for one in (received, replace(received, sha256="another", path="another")):
            enter_instance(connection, one, max_wait_s, True, association, now)
        _release(connection, association, now, 0.0, max_wait_s, habits=False)
        raise _RehearsedError


def look_up(database: Database, sop_instance_uid: str, sha256: str) -> Reception | None:
    """Say whether an object needs no storing, because we made it or hold these very bytes; None where it does."""
    with database.reading() as connection:
        known = LOOK_UP.first(connection, {"uid": sop_instance_uid, "sha256": sha256})
    if known is None or known.held is not None:
        return None if known is None else Reception.DUPLICATE
    if known.result_id is None:
        return None
    with database.writing() as connection:
        counted = {ResultRow.returned_count: ResultRow.returned_count + 1}
        connection.execute(update(ResultRow).where(ResultRow.id == known.result_id).values(counted))
    return Reception.OWN_RESULT


def is_forgotten(database: Database, sop_instance_uid: str, sha256: str) -> bool:
    """Tell whether we held these very bytes until their days were over."""
    wanted = select(InstanceRow.id).where(
        InstanceRow.sop_instance_uid == sop_instance_uid, InstanceRow.sha256 == sha256, InstanceRow.path.is_(None)
    )
    with database.reading() as connection:
        return connection.execute(wanted).first() is not None


def register_instance(
    database: Database,
    received: ReceivedInstance,
    *,
    max_wait_s: float,
    analysed: bool,
    association: SendingAssociation | None = None,
) -> Entered:
    """Enter one instance whose bytes are safe; reopen its series; return what it meant, and series and study.

    Args:
        max_wait_s: the series is due after this time, unless its association is released before.
        analysed: False for storage classes that are kept but never read.
        association: who sends it; None where that is over.
    """
    return database.write_together(
        lambda connection: enter_instance(connection, received, max_wait_s, analysed, association, time.time())
    )


def enter_instance(
    connection: Connection,
    received: ReceivedInstance,
    max_wait_s: float,
    analysed: bool,
    association: SendingAssociation | None,
    now: float,
) -> Entered:
    """Enter one instance as received at ``now``; see :func:`register_instance`."""
    uid = {"uid": received.sop_instance_uid}
    uids = uid | {"study": received.study_instance_uid, "series": received.series_instance_uid}
    found = FIND_SERIES.first(connection, uids | {"name": association.name if association else ""})
    if not _may_enter(connection, received, found):
        return Entered(Reception.NO_SELF_TEST, 0, 0)
    series_id, study_id, dormant = _series_of(connection, received, found, now, now + max_wait_s)
    versions = FIND_VERSIONS.all(connection, uid) if found is None or found.has_versions else []
    known = next((one for one in versions if one.sha256 == received.sha256), None)
    if known is not None and known.path == received.path:  # a receiver that started meanwhile took it for an orphan
        return Entered(Reception.NEW, series_id, study_id)
    if known is not None and known.path is not None:
        return Entered(Reception.DUPLICATE, series_id, study_id)
    if known is not None:
        _restore(connection, known.id, received)
        _touch(connection, series_id, now)
        return Entered(Reception.KEPT_ONLY, series_id, study_id)
    rejected = found.rejected if found is not None else connection.execute(FIND_REJECTION, uid).scalar()
    rejected = rejected if analysed else None
    if dormant or rejected is not None:
        _add(connection, series_id, received, now, InstanceState.NOT_NEEDED, rejected)
        _touch(connection, series_id, now)
        if rejected is not None and not dormant:
            reject_if_empty(connection, series_id, NotAnalysedReason[rejected])
        return Entered(Reception.KEPT_ONLY, series_id, study_id)
    older = [one.id for one in versions if one.series_id == series_id and one.current]
    _supersede(connection, older)
    _add(connection, series_id, received, now, InstanceState.RECEIVED if analysed else InstanceState.NOT_NEEDED)
    _reopen(connection, series_id, now, now + max_wait_s)
    if association is not None:
        _hold_open(connection, series_id, association, now + max_wait_s, None if found is None else found.held_until)
    elsewhere = {one.series_id for one in versions if one.series_id != series_id and _counts(one)}
    if elsewhere and analysed:
        for one in (series_id, *elsewhere):
            quarantine(connection, one, NotAnalysedReason.UID_ELSEWHERE, "")
        return Entered(Reception.QUARANTINED, series_id, study_id)
    return Entered(Reception.VERSION if older else Reception.NEW, series_id, study_id, found is None)


def _counts(version: Any) -> bool:
    """What a person rejected makes no other series doubtful."""
    return bool(version.current) and version.series_state != SeriesState.REJECTED


def release_association(
    database: Database, association: SendingAssociation, *, quiet_s: float, max_wait_s: float, habits: bool = False
) -> list[int]:
    """Note that an association was released: what it sent may close when it has been quiet for long enough.

    The quiet time of a series is the larger of ``quiet_s`` and twice the longest pause seen in it. A release only
    shortens the wait, and does nothing where another association still sends, or where the series was concluded
    before: late slices are collected for ``max_wait_s``.

    Args:
        habits: a series closes at once that has as many slices as those before it; see `habits`.

    Returns:
        The series that close at once.
    """
    with database.writing() as connection:
        return _release(connection, association, time.time(), quiet_s, max_wait_s, habits=habits)


def _release(
    connection: Connection,
    association: SendingAssociation,
    now: float,
    quiet_s: float,
    max_wait_s: float,
    *,
    habits: bool,
) -> list[int]:
    mine = [row.series_id for row in SENT.all(connection, {"name": association.name})]
    _close_association(connection, association)
    held = connection.execute(HELD, {"sent": mine, "now": now}).scalars().all()
    closing = []
    for row in connection.execute(MAY_CLOSE, {"sent": sorted(set(mine) - set(held))}).all():
        due_at = row.last_received_at + min(max_wait_s, max(quiet_s, 2 * row.longest_pause_s))
        if habits and now < due_at and has_as_many_as_ever(connection, row.id):
            due_at = now
            closing.append(row.id)
        if due_at < row.due_at:
            SET_DUE.change(connection, {"series_id": row.id, "due": due_at})
    return closing


def forget_association(database: Database, association: SendingAssociation) -> None:
    """Note that an association was aborted or cut: its series close ``max_wait_s`` after their last slice."""
    with database.writing() as connection:
        _close_association(connection, association)


def _may_enter(connection: Connection, received: ReceivedInstance, series: Any | None) -> bool:
    """Keep self-tests and patients apart: a test enters what it has reserved, and nobody else enters that."""
    uid = received.study_instance_uid
    of_test = _self_test_of(FIND_STUDY.first(connection, {"study": uid}) if series is None else series)
    if received.calling_ae_title != SELF_TEST_AE_TITLE:
        return not of_test
    return of_test is not False and is_reserved_within(connection, uid)


def _self_test_of(found: Any | None) -> bool | None:
    return None if found is None else found.self_test


def _close_association(connection: Connection, association: SendingAssociation) -> None:
    CLOSE_ASSOCIATION.change(connection, {"name": association.name})


def _hold_open(
    connection: Connection, series_id: int, association: SendingAssociation, until: float, held_until: float | None
) -> None:
    """Lease a series to an association; one of its images in a second renews the lease, the others do not."""
    if held_until is not None and until - _RENEWED_EVERY_S < held_until <= until:
        return
    values = {"name": association.name, "held": series_id, "until": until}
    if not RENEW_ASSOCIATION.change(connection, values):
        lease = {"series_id": series_id, "association": association.name}
        lease |= {"lease_owner": association.owner, "lease_expires_at": until}
        ADD_ASSOCIATION.change(connection, lease)


def _series_of(
    connection: Connection, received: ReceivedInstance, found: Any | None, now: float, due_at: float
) -> tuple[int, int, bool]:
    """Make the series where it was not found; give its number and its study's.

    The flag says that its images were deleted: new ones start nothing.
    """
    if found is not None:
        if received.priority > found.priority or (found.old and not received.old):
            _hurry(connection, found, received)
        return found.id, found.study_id, found.images_deleted_at is not None
    study_id = _study_of(connection, received, now)
    series = {
        "study_id": study_id,
        "series_instance_uid": received.series_instance_uid,
        "modality": received.modality,
        "state": SeriesState.RECEIVING,
        "due_at": due_at,
        "first_received_at": now,
        "last_received_at": now,
        "calling_ae_title": received.calling_ae_title,
        "remote_address": received.remote_address,
        "priority": received.priority,
        "old": received.old,
        "acquired_at": received.acquired_at,
        "station_name": received.station_name,
    }
    return ADD_SERIES.enter(connection, series), study_id, False


def _hurry(connection: Connection, found: Any, received: ReceivedInstance) -> None:
    """One slice that is new or urgent makes its series and study so."""
    values = {"priority": max(found.priority, received.priority), "old": found.old and received.old}
    connection.execute(update(SeriesRow).where(SeriesRow.id == found.id).values(values))
    _study_of(connection, received, 0.0)


def _study_of(connection: Connection, received: ReceivedInstance, now: float) -> int:
    uid = received.study_instance_uid
    known = FIND_STUDY_ROW.first(connection, {"study": uid})
    if known is None:
        values = {"study_instance_uid": uid, "created_at": now, "priority": received.priority, "old": received.old,
                  "self_test": received.calling_ae_title == SELF_TEST_AE_TITLE}  # fmt: skip
        return ADD_STUDY.enter(connection, values)
    if received.priority > known.priority or (known.old and not received.old):
        values = {"priority": max(known.priority, received.priority), "old": known.old and received.old}
        connection.execute(update(StudyRow).where(StudyRow.id == known.id).values(values))
    return int(known.id)


def _supersede(connection: Connection, older: list[int]) -> None:
    if older:
        connection.execute(update(InstanceRow).where(InstanceRow.id.in_(older)).values(current=False))


def _add(
    connection: Connection,
    series_id: int,
    received: ReceivedInstance,
    now: float,
    state: InstanceState,
    rejected: str | None = None,
) -> None:
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
        "reason": rejected,
        "current": rejected is None,
    }
    ADD_INSTANCE.change(connection, values)


def _restore(connection: Connection, instance_id: int, received: ReceivedInstance) -> None:
    values = {"path": received.path, "state": InstanceState.NOT_NEEDED}
    connection.execute(update(InstanceRow).where(InstanceRow.id == instance_id).values(values))


def _reopen(connection: Connection, series_id: int, now: float, due_at: float) -> None:
    if not REOPEN_SERIES.change(connection, {"series_id": series_id, "now": now, "due": due_at}):
        _touch(connection, series_id, now)


def _touch(connection: Connection, series_id: int, now: float) -> None:
    """Note the arrival: the quiet time and the days of retention count from here."""
    connection.execute(update(SeriesRow).where(SeriesRow.id == series_id).values(last_received_at=now))
