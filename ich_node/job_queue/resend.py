"""Send current reports again, and to destinations that were added since."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

from sqlalchemy import ColumnElement, Connection, and_, bindparam, exists, select, update

from ich_node.database import Database, DeliveryRow, ResultRow, SeriesRow, StudyRow
from ich_node.job_queue.results import add_deliveries
from ich_node.records import DeliveryState, Destination, StudySent, Triage


def resend(
    database: Database,
    destinations: Callable[[StudySent], Sequence[Destination]],
    *,
    study_instance_uid: str | None = None,
    dead_only: bool = False,
    destination: str | None = None,
    delivery_id: int | None = None,
) -> int:
    """Send current reports again, and to destinations that were added since. Return how many rows are to go out.

    Args:
        destinations: gives where the results of a study go; what is held for one of them stays held.
        study_instance_uid: of one study only.
        dead_only: only what is DEAD.
        destination: to one destination only.
        delivery_id: this row of the outbox only.
    """
    now = time.time()
    with database.writing() as connection:
        only = [] if study_instance_uid is None else [StudyRow.study_instance_uid == study_instance_uid]
        if delivery_id is not None:
            only.append(StudyRow.id.in_(select(DeliveryRow.study_id).where(DeliveryRow.id == delivery_id)))
        elif dead_only:
            only.append(StudyRow.id.in_(select(DeliveryRow.study_id).where(DeliveryRow.state == DeliveryState.DEAD)))
        studies = _reported(connection, *only)
        places = {study.id: destinations(_sent(study)) for study in studies}
        if not dead_only and delivery_id is None:
            for study in studies:
                _add_missing(connection, study, places[study.id], now)
        held = {(study_id, one.name) for study_id, some in places.items() for one in some if one.held}
        wanted = [StudyRow.id == DeliveryRow.study_id, StudyRow.revision == DeliveryRow.revision]
        if study_instance_uid is not None:
            wanted.append(StudyRow.study_instance_uid == study_instance_uid)
        rows = select(DeliveryRow.id, DeliveryRow.study_id, DeliveryRow.destination).join(StudyRow, and_(*wanted))
        rows = rows.where(DeliveryRow.state != DeliveryState.SENDING, _report_is_there())
        if delivery_id is not None:
            rows = rows.where(DeliveryRow.id == delivery_id)
        if dead_only:
            rows = rows.where(DeliveryRow.state == DeliveryState.DEAD)
        if destination is not None:
            rows = rows.where(DeliveryRow.destination == destination)
        ids = [row.id for row in connection.execute(rows) if (row.study_id, row.destination) not in held]
        fresh = {
            "state": DeliveryState.PENDING, "attempts": 0, "refusals": 0, "next_attempt_at": now, "created_at": now,
            "finished_at": None, "error": None, "commitment_ask_at": None, "commitment_asks": 0,
            "commitment_failures": 0, "commitment_error": None, "committed_at": None,
        }  # fmt: skip
        again = update(DeliveryRow).where(DeliveryRow.id == bindparam("row")).values(fresh)
        if ids:
            connection.execute(again, [{"row": one} for one in ids])
        return len(ids)


def _reported(connection: Connection, *only: ColumnElement[bool]) -> Sequence[Any]:
    """Read the studies whose current report can be sent, and who sent what it rests on."""
    studies = (
        select(StudyRow.id, StudyRow.revision, StudyRow.old, StudyRow.triage)
        .add_columns(SeriesRow.calling_ae_title, SeriesRow.remote_address)
        .outerjoin(SeriesRow, SeriesRow.id == StudyRow.rests_on_series_id)
        .where(StudyRow.revision > 0, _report_is_there(), *only)
    )
    return connection.execute(studies).all()


def _sent(study: Any) -> StudySent:
    triage = Triage(study.triage) if study.triage else None
    return StudySent(study.calling_ae_title or "", study.remote_address or "", study.old, triage)


def _report_is_there() -> ColumnElement[bool]:
    """Tell studies whose current report can be sent from those whose file went after its days."""
    return exists().where(
        ResultRow.study_id == StudyRow.id, ResultRow.revision == StudyRow.revision, ResultRow.path.is_not(None)
    )


def _add_missing(connection: Connection, study: Any, destinations: Sequence[Destination], now: float) -> None:
    """Enter what a study has made and a destination has no row of."""
    has = select(DeliveryRow.destination, DeliveryRow.kind).where(
        DeliveryRow.study_id == study.id, DeliveryRow.revision == study.revision
    )
    known = {(row.destination, row.kind) for row in connection.execute(has)}
    made = select(ResultRow.kind).where(ResultRow.study_id == study.id, ResultRow.revision == study.revision)
    for kind in connection.execute(made.where(ResultRow.path.is_not(None)).group_by(ResultRow.kind)).scalars():
        missing = [one for one in destinations if (one.name, kind) not in known]
        add_deliveries(connection, study.id, study.revision, kind, missing, now)
