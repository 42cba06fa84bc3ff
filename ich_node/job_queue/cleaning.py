"""What housekeeping asks of the database, beside retention."""

from __future__ import annotations

import time
from collections.abc import Collection

from sqlalchemy import delete, select, update

from ich_node.database import (
    Database,
    DeliveryRow,
    FileToDeleteRow,
    InstanceRow,
    OpenAssociationRow,
    ResultRow,
    SeriesRow,
    StudyRow,
    is_one_of,
)
from ich_node.database.of_patients import series_of_patients
from ich_node.records import OPEN_SERIES, DeliveryState


def known_paths(database: Database) -> set[str]:
    """Every file that a row speaks of, relative to the state folder; also those that are about to be unlinked."""
    with database.reading() as connection:
        images = connection.execute(select(InstanceRow.path).where(InstanceRow.path.is_not(None))).scalars()
        paths = {path for path in images if path}
        results = connection.execute(select(ResultRow.path).where(ResultRow.path.is_not(None))).scalars()
        going = connection.execute(select(FileToDeleteRow.path)).scalars()
        return paths | {path for path in results if path} | set(going)


def known_reports(database: Database, paths: Collection[str]) -> set[str]:
    """Say which of some paths of results a row speaks of, as in `known_paths`: all of a year's would fill memory."""
    with database.reading() as connection:
        results = connection.execute(select(ResultRow.path).where(is_one_of(ResultRow.path, paths))).scalars()
        going = connection.execute(select(FileToDeleteRow.path).where(is_one_of(FileToDeleteRow.path, paths)))
        return {path for path in results if path} | set(going.scalars())


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
                SeriesRow.state.in_(OPEN_SERIES),
                SeriesRow.last_received_at < time.time() - after_s,
                series_of_patients(),
            )
            .distinct()
        )
        return list(rows.scalars())
