"""What housekeeping asks of the database. Rows with UIDs and hashes stay; files and planes go."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import delete, exists, select, update

from ich_node.database import (
    Database,
    DeliveryRow,
    InstanceRow,
    OpenAssociationRow,
    PlaneRow,
    ResultRow,
    SeriesRow,
    StudyRow,
)
from ich_node.records import DeliveryState, InstanceState, NotAnalysedReason, SeriesState

_UNSENT = (DeliveryState.PENDING, DeliveryState.SENDING, DeliveryState.HELD)
_SETTLED = (SeriesState.CONCLUDED, SeriesState.NOT_ANALYSED, SeriesState.FAILED, SeriesState.REJECTED)


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A file that may be deleted."""

    id: int
    path: str


def expired_images(
    database: Database, *, images_before: float, not_head_before: float, limit: int = 500
) -> list[StoredFile]:
    """List image files past their days, of series that are settled and studies with nothing left to send.

    Args:
        images_before: seconds since 1970; images of head CT received before it are expired.
        not_head_before: the same for everything else.
    """
    unsent = exists().where(DeliveryRow.study_id == SeriesRow.study_id, DeliveryRow.state.in_(_UNSENT))
    is_head = SeriesRow.head_expected | (SeriesRow.state == SeriesState.CONCLUDED)
    old = (is_head & (SeriesRow.last_received_at < images_before)) | (
        ~is_head & (SeriesRow.last_received_at < not_head_before)
    )
    with database.reading() as connection:
        rows = connection.execute(
            select(InstanceRow.id, InstanceRow.path)
            .join(SeriesRow, SeriesRow.id == InstanceRow.series_id)
            .where(InstanceRow.path.is_not(None), SeriesRow.state.in_(_SETTLED), old, ~unsent)
            .limit(limit)
        )
        return [StoredFile(row.id, row.path) for row in rows]


def forget_files(database: Database, files: Sequence[StoredFile]) -> None:
    """Note that image files are gone, before they are unlinked; their planes go with them."""
    ids = [one.id for one in files]
    with database.writing() as connection:
        series = select(InstanceRow.series_id).where(InstanceRow.id.in_(ids))
        connection.execute(delete(PlaneRow).where(PlaneRow.series_id.in_(series)))
        connection.execute(update(SeriesRow).where(SeriesRow.id.in_(series)).values(images_deleted_at=time.time()))
        connection.execute(update(InstanceRow).where(InstanceRow.id.in_(ids)).values(path=None))
        # what still waited for a decoder (its series FAILED) will never get there
        undecoded = update(InstanceRow).where(InstanceRow.id.in_(ids), InstanceRow.state == InstanceState.RECEIVED)
        gone = {"state": InstanceState.NOT_NEEDED, "reason": NotAnalysedReason.IMAGES_DELETED.name}
        connection.execute(undecoded.values(gone))


def expired_results(database: Database, *, before: float, limit: int = 500) -> list[StoredFile]:
    """List files of reports made before a time (seconds since 1970) that are not waiting to be sent."""
    unsent = exists().where(DeliveryRow.study_id == ResultRow.study_id, DeliveryRow.state.in_(_UNSENT))
    with database.reading() as connection:
        rows = connection.execute(
            select(ResultRow.id, ResultRow.path)
            .where(ResultRow.path.is_not(None), ResultRow.created_at < before, ~unsent)
            .limit(limit)
        )
        return [StoredFile(row.id, row.path) for row in rows]


def forget_results(database: Database, files: Sequence[StoredFile]) -> None:
    """Note that report files are gone, before they are unlinked."""
    with database.writing() as connection:
        connection.execute(update(ResultRow).where(ResultRow.id.in_([one.id for one in files])).values(path=None))


def known_paths(database: Database) -> set[str]:
    """Every file that a row speaks of, relative to the state folder."""
    with database.reading() as connection:
        images = connection.execute(select(InstanceRow.path).where(InstanceRow.path.is_not(None))).scalars()
        paths = {path for path in images if path}
        results = connection.execute(select(ResultRow.path).where(ResultRow.path.is_not(None))).scalars()
        return paths | {path for path in results if path}


def rescue_expired_leases(database: Database) -> int:
    """Free deliveries whose deliverer vanished, on whatever host; a series' expired lease is free as it is."""
    with database.writing() as connection:
        expired = OpenAssociationRow.lease_expires_at < time.time()
        connection.execute(delete(OpenAssociationRow).where(expired))
        return connection.execute(
            update(DeliveryRow)
            .where(DeliveryRow.state == DeliveryState.SENDING, DeliveryRow.lease_expires_at < time.time())
            .values(state=DeliveryState.PENDING, lease_owner=None, lease_expires_at=None)
        ).rowcount


def quiet_studies(database: Database, after_s: float) -> list[str]:
    """List studies with an open series that got no slice for ``after_s``: something that should work does not."""
    with database.reading() as connection:
        rows = connection.execute(
            select(StudyRow.study_instance_uid)
            .join(SeriesRow, SeriesRow.study_id == StudyRow.id)
            .where(
                SeriesRow.state.in_((SeriesState.RECEIVING, SeriesState.COMPLETE)),
                SeriesRow.last_received_at < time.time() - after_s,
            )
            .distinct()
        )
        return list(rows.scalars())
