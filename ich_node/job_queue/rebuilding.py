"""Fill an empty database from what lies on disk: saved results first, then images; see ``ich_node.rebuild``."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, func, insert, inspect, select, update

from ich_node.database import Database, DeliveryRow, InstanceRow, ResultRow, SeriesRow, StudyRow
from ich_node.job_queue.reception import enter_instance
from ich_node.job_queue.resend import resend
from ich_node.job_queue.results import SavedObject
from ich_node.job_queue.retention import REBUILT
from ich_node.records import (
    ANALYSED_SOP_CLASSES,
    KEY_OBJECT_SELECTION_STORAGE,
    DeliveryState,
    Destination,
    NotAnalysedReason,
    ReceivedInstance,
    SeriesState,
    StudySent,
    Triage,
)

_UNKNOWN_DELIVERY = f"{REBUILT}whether the destination has it is not known; ich-node resend sends it"


@dataclass(frozen=True, slots=True)
class FoundImage:
    """An image file, and when it was received."""

    received: ReceivedInstance
    received_at: float
    analysed: bool


@dataclass(frozen=True, slots=True)
class FoundReport:
    """A saved report: one revision of a study's answer."""

    revision: int
    created_at: float
    triage: Triage | None
    reason: NotAnalysedReason | None
    withdrawn: bool
    images: Mapping[str, frozenset[str]]
    """SOP Instance UIDs that it rests on, by series."""

    @property
    def gives_a_result(self) -> bool:
        """Whether a network spoke; with an untrained one there is no triage."""
        return not self.withdrawn and (self.triage is not None or self.reason is NotAnalysedReason.UNTRAINED_MODEL)


@dataclass(frozen=True, slots=True)
class FoundStudy:
    """What results say of a study."""

    study_instance_uid: str
    reports: Sequence[FoundReport]
    """The newest first."""
    objects: Sequence[tuple[int, float, SavedObject]]
    """Revision and time of each."""


def enter_found_images(database: Database, images: Sequence[FoundImage], *, max_wait_s: float) -> None:
    """Enter images in their order of arrival, in one transaction."""
    with database.writing() as connection:
        for one in images:
            enter_instance(connection, one.received, max_wait_s, one.analysed, None, one.received_at)


def enter_found_study(database: Database, study: FoundStudy, *, alert_since: float) -> None:
    """Enter the results of a study and its answer; its series that a report covers are concluded.

    Args:
        alert_since: of a report made since (seconds since 1970), it is decided again who is told.
    """
    newest = study.reports[0]
    with database.writing() as connection:
        study_id = _study(connection, study)
        for revision, created_at, saved in study.objects:
            connection.execute(insert(ResultRow).values(_result(study_id, revision, created_at, saved)))
        concluded = {uid: _conclude(connection, study_id, uid, study.reports) for uid in _series_of(study.reports)}
        rests_on = next((concluded[uid] for uid in newest.images), None)
        answer = {
            "revision": newest.revision,
            "reported_at": newest.created_at,
            "triage": newest.triage,
            "reason": None if newest.reason is None else newest.reason.name,
            "withdrawn": newest.withdrawn,
            "rests_on_series_id": rests_on,
            "alerted_revision": newest.revision - (newest.created_at >= alert_since),
        }
        connection.execute(update(StudyRow).where(StudyRow.id == study_id).values(answer))


def queue_again(database: Database, destinations: Callable[[StudySent], Sequence[Destination]], *, hold: bool) -> int:
    """Enter a delivery of every current result to wherever it goes; return how many.

    Args:
        hold: they wait for ``ich-node resend``.
    """
    count = resend(database, destinations)
    if hold:
        values = {"state": DeliveryState.HELD, "error": _UNKNOWN_DELIVERY, "finished_at": time.time()}
        with database.writing() as connection:
            connection.execute(update(DeliveryRow).where(DeliveryRow.state == DeliveryState.PENDING).values(values))
    return count


def count_series(database: Database) -> tuple[int, dict[str, int]]:
    """Count the studies, and the series by their state."""
    with database.reading() as connection:
        studies = connection.execute(select(func.count()).select_from(StudyRow)).scalar_one()
        series = connection.execute(select(SeriesRow.state, func.count()).group_by(SeriesRow.state)).all()
    return studies, {str(state): count for state, count in series}


def gather_into_one_file(database: Database) -> None:
    """Bring what is in the write-ahead log into the database's file, so that it can be renamed alone."""
    with closing(database.engine.raw_connection()) as connection:
        connection.cursor().execute("PRAGMA wal_checkpoint(TRUNCATE)")


def rejection_candidates(database: Database) -> list[str]:
    """List the files of key object selections: some of them take images back."""
    notes = select(InstanceRow.path).where(InstanceRow.sop_class_uid == KEY_OBJECT_SELECTION_STORAGE)
    with database.reading() as connection:
        return [path for path in connection.execute(notes.order_by(InstanceRow.id)).scalars() if path]


def is_blank(database: Database) -> bool:
    """Say whether a database knows of no image and no result."""
    with database.reading() as connection:
        if not inspect(connection).has_table(InstanceRow.__tablename__):
            return True
        found = [connection.execute(select(table.id).limit(1)).first() for table in (InstanceRow, ResultRow)]
    return not any(found)


def _study(connection: Connection, study: FoundStudy) -> int:
    uid = study.study_instance_uid
    known = connection.execute(select(StudyRow.id).where(StudyRow.study_instance_uid == uid)).scalar()
    if known is not None:
        return known
    values = {"study_instance_uid": uid, "created_at": study.reports[-1].created_at}
    made = connection.execute(insert(StudyRow).values(values)).inserted_primary_key
    assert made is not None, "an insert of one row has a key"
    return int(made[0])


def _result(study_id: int, revision: int, created_at: float, saved: SavedObject) -> dict[str, Any]:
    return {
        "study_id": study_id, "revision": revision, "kind": saved.kind, "encoding": saved.encoding,
        "preference": saved.preference, "sop_class_uid": saved.sop_class_uid,
        "sop_instance_uid": saved.sop_instance_uid, "series_instance_uid": saved.series_instance_uid,
        "sha256": saved.sha256, "path": saved.path, "created_at": created_at,
    }  # fmt: skip


def _series_of(reports: Sequence[FoundReport]) -> list[str]:
    return list(dict.fromkeys(uid for one in reports for uid in one.images))


def _conclude(connection: Connection, study_id: int, series_uid: str, reports: Sequence[FoundReport]) -> int:
    """Conclude a series where the newest report on it rests on exactly the images that are here; return its number."""
    report = next(one for one in reports if series_uid in one.images)
    mine = SeriesRow.study_id == study_id, SeriesRow.series_instance_uid == series_uid
    row = connection.execute(select(SeriesRow.id, SeriesRow.state).where(*mine)).first()
    values = {
        "state": SeriesState.CONCLUDED if report.gives_a_result else SeriesState.NOT_ANALYSED,
        "triage": report.triage,
        "reason": None if report.reason is None else report.reason.name,
        "head_expected": True,
        "closed_at": report.created_at,
        "concluded_at": report.created_at,
    }
    if row is None:
        return _enter_series_without_images(connection, study_id, series_uid, report, values)
    open_still = row.state == SeriesState.RECEIVING and report.gives_a_result
    if open_still and _images_here(connection, row.id) == report.images[series_uid]:
        connection.execute(update(SeriesRow).where(SeriesRow.id == row.id).values(values))
    else:  # late slices are collected for long, as of every series that was concluded before
        connection.execute(update(SeriesRow).where(SeriesRow.id == row.id).values(concluded_at=report.created_at))
    return int(row.id)


def _images_here(connection: Connection, series_id: int) -> frozenset[str]:
    here = select(InstanceRow.sop_instance_uid).where(
        InstanceRow.series_id == series_id, InstanceRow.current, InstanceRow.sop_class_uid.in_(ANALYSED_SOP_CLASSES)
    )
    return frozenset(connection.execute(here).scalars())


def _enter_series_without_images(
    connection: Connection, study_id: int, series_uid: str, report: FoundReport, values: dict[str, Any]
) -> int:
    """Its images went after their days: should they come again, they start nothing."""
    facts = {
        "study_id": study_id, "series_instance_uid": series_uid, "modality": "CT", "due_at": report.created_at,
        "first_received_at": report.created_at, "last_received_at": report.created_at, "calling_ae_title": "",
        "remote_address": "", "images_deleted_at": report.created_at,
    }  # fmt: skip
    made = connection.execute(insert(SeriesRow).values(values | facts)).inserted_primary_key
    assert made is not None, "an insert of one row has a key"
    return int(made[0])
