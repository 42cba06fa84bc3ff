"""Lists for the operator, in pages: series, deliveries and alerts of some states, the newest first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar

from sqlalchemy import select

from ich_node.database import AlertRow, Database, DeliveryRow, SeriesRow, StudyRow
from ich_node.database.of_patients import series_of_patients
from ich_node.queries.states import object_in_words
from ich_node.queries.studies import why_of_series

LIST_PAGE: Final = 50
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class ListedSeries:
    """A series that waits, failed, or is quarantined."""

    id: int
    study_instance_uid: str
    series_instance_uid: str
    modality: str
    number: int | None
    state: str
    why: str
    attempts: int
    station_name: str
    calling_ae_title: str
    last_received_at: float
    due_at: float
    planes_waiting: int
    is_leased: bool
    """A worker is at it."""


@dataclass(frozen=True, slots=True)
class ListedDelivery:
    """A row of the outbox."""

    id: int
    study_instance_uid: str
    what: str
    revision: int
    destination: str
    state: str
    attempts: int
    error: str
    created_at: float
    next_attempt_at: float


@dataclass(frozen=True, slots=True)
class ListedAlert:
    """An alert through one channel; of a study, or of the node itself."""

    id: int
    identifier: str
    study_instance_uid: str
    """Empty where it is about the node."""
    kind: str
    outcome: str
    text: str
    channel: str
    step: int
    state: str
    attempts: int
    error: str
    created_at: float
    sent_at: float | None


@dataclass(frozen=True, slots=True)
class Listed(Generic[T]):
    """One page of a list."""

    rows: tuple[T, ...]
    next_before: int | None
    """For the page after this one; None where this is the last."""


def list_series(
    database: Database, states: Sequence[str], before: int | None = None, limit: int = LIST_PAGE
) -> Listed[ListedSeries]:
    """Read a page of the series in some states."""
    wanted = select(SeriesRow, StudyRow.study_instance_uid).join(StudyRow, StudyRow.id == SeriesRow.study_id)
    wanted = wanted.where(SeriesRow.state.in_(states), series_of_patients())
    rows, more = _page(database, wanted, SeriesRow.id, before, limit)
    return Listed(tuple(map(_series, rows)), more)


def list_deliveries(
    database: Database,
    states: Sequence[str],
    destination: str = "",
    before: int | None = None,
    limit: int = LIST_PAGE,
) -> Listed[ListedDelivery]:
    """Read a page of the deliveries in some states, to one destination where it is named."""
    wanted = select(DeliveryRow, StudyRow.study_instance_uid).join(StudyRow, StudyRow.id == DeliveryRow.study_id)
    wanted = wanted.where(DeliveryRow.state.in_(states))
    if destination:
        wanted = wanted.where(DeliveryRow.destination == destination)
    rows, more = _page(database, wanted, DeliveryRow.id, before, limit)
    return Listed(tuple(map(_delivery, rows)), more)


def list_alerts(
    database: Database, states: Sequence[str], before: int | None = None, limit: int = LIST_PAGE
) -> Listed[ListedAlert]:
    """Read a page of the alerts in some states."""
    wanted = select(AlertRow, StudyRow.study_instance_uid).outerjoin(StudyRow, StudyRow.id == AlertRow.study_id)
    rows, more = _page(database, wanted.where(AlertRow.state.in_(states)), AlertRow.id, before, limit)
    return Listed(tuple(map(_alert, rows)), more)


def _page(
    database: Database, wanted: Any, key: Any, before: int | None, limit: int
) -> tuple[Sequence[Any], int | None]:
    if before is not None:
        wanted = wanted.where(key < before)
    with database.reading() as connection:
        rows = connection.execute(wanted.order_by(key.desc()).limit(limit + 1)).all()
    shown = rows[:limit]
    return shown, shown[-1].id if len(rows) > limit else None


def _series(row: Any) -> ListedSeries:
    return ListedSeries(
        id=row.id, study_instance_uid=row.study_instance_uid, series_instance_uid=row.series_instance_uid,
        modality=row.modality, number=(row.choice or {}).get("series_number"), state=row.state,
        why=why_of_series(row), attempts=row.attempts, station_name=row.station_name,
        calling_ae_title=row.calling_ae_title,
        last_received_at=row.last_received_at, due_at=row.due_at, planes_waiting=row.planes_waiting,
        is_leased=row.lease_owner is not None,
    )  # fmt: skip


def _delivery(row: Any) -> ListedDelivery:
    return ListedDelivery(
        id=row.id, study_instance_uid=row.study_instance_uid,
        what=object_in_words(row.kind), revision=row.revision,
        destination=row.destination, state=row.state, attempts=row.attempts, error=row.error or "",
        created_at=row.created_at, next_attempt_at=row.next_attempt_at,
    )  # fmt: skip


def _alert(row: Any) -> ListedAlert:
    return ListedAlert(
        id=row.id, identifier=row.identifier, study_instance_uid=row.study_instance_uid or "", kind=row.kind,
        outcome=row.outcome, text=row.text or "", channel=row.channel, step=row.step, state=row.state,
        attempts=row.attempts, error=row.error or "", created_at=row.created_at, sent_at=row.sent_at,
    )  # fmt: skip
