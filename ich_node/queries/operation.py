"""What the operator's page says of the node as a whole, from indices and from the newest rows."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Connection, Row, func, select, text

from ich_node.database import (
    AlertRow,
    ConditionRow,
    Database,
    DeletionRow,
    DeliveryRow,
    DestinationRow,
    InstanceRow,
    SeriesRow,
    StudyRow,
)
from ich_node.database.of_patients import self_test_studies, series_of_patients
from ich_node.database.tables import TO_COMMIT
from ich_node.queries.counting import count_holds, counts, counts_of_patients
from ich_node.records import OPEN_SERIES, DeliveryState

NEWEST: Final = 500
"""Of the newest series so many are counted for the rate."""
_HOUR_S: Final = 3600.0
_WAITING: Final = (DeliveryState.PENDING, DeliveryState.SENDING)
_ARRIVED: Final = (DeliveryState.DELIVERED, DeliveryState.COMMITTED)
_FEW: Final = 20


@dataclass(frozen=True, slots=True)
class Queue:
    """What waits for the worker."""

    series: dict[str, int]
    """By state."""
    oldest_open_at: float | None
    """When the first slice came of the series that waits longest."""
    arrived: int
    """Series within the last hour, of the newest `NEWEST`."""
    concluded: int
    planes_waiting: int


@dataclass(frozen=True, slots=True)
class DestinationTraffic:
    """How it goes with one destination."""

    name: str
    counts: dict[str, int]
    """Deliveries by state."""
    oldest_waiting_at: float | None
    last_success_at: float | None
    paused: str
    """Why; empty where it is not."""
    paused_at: float | None
    uncommitted: int
    """Delivered, and storage commitment is asked or to be asked."""

    @property
    def backlog(self) -> int:
        return sum(self.counts.get(state, 0) for state in _WAITING)

    @property
    def dead(self) -> int:
        return self.counts.get(DeliveryState.DEAD, 0)

    @property
    def held(self) -> int:
        return self.counts.get(DeliveryState.HELD, 0)


@dataclass(frozen=True, slots=True)
class Condition:
    """Something that the watchdog found."""

    name: str
    text: str
    since: float


@dataclass(frozen=True, slots=True)
class RecentDeletion:
    """What went of one study."""

    study_instance_uid: str
    what: str
    files: int
    size_bytes: int
    rule: str
    deleted_at: float


@dataclass(frozen=True, slots=True)
class NodeOperation:
    """The node as its operator sees it."""

    queue: Queue
    destinations: tuple[DestinationTraffic, ...]
    alerts: dict[str, int]
    """By state."""
    conditions: tuple[Condition, ...]
    legal_holds: int
    deletions: tuple[RecentDeletion, ...]
    heard: dict[str, float]
    """When each role last did something, where the database shows it."""
    model: dict[str, Any]
    """Of the newest series that was concluded."""


def node_operation(database: Database, destinations: Sequence[str]) -> NodeOperation:
    """Read the state of the node.

    Args:
        destinations: names of those that are configured; others are shown where something is for them.
    """
    now = time.time()
    with database.reading() as connection:
        newest = connection.execute(_newest_series()).all()
        traffic = _traffic(connection, destinations)
        return NodeOperation(
            queue=_queue(connection, newest, now),
            destinations=traffic,
            alerts=counts(connection, AlertRow.state),
            conditions=_conditions(connection),
            legal_holds=count_holds(connection),
            deletions=_deletions(connection),
            heard=_heard(connection, newest, traffic),
            model=next((row.model for row in newest if row.concluded_at and row.model), {}),
        )


def _newest_series() -> Any:
    columns = SeriesRow.first_received_at, SeriesRow.concluded_at, SeriesRow.model
    return select(*columns).where(series_of_patients()).order_by(SeriesRow.id.desc()).limit(NEWEST)


def _queue(connection: Connection, newest: Sequence[Row[Any]], now: float) -> Queue:
    opened = (SeriesRow.state.in_(OPEN_SERIES), series_of_patients())
    oldest, planes = connection.execute(
        select(func.min(SeriesRow.first_received_at), func.sum(SeriesRow.planes_waiting)).where(*opened)
    ).one()
    return Queue(
        series=counts_of_patients(connection, SeriesRow.state, ~series_of_patients()),
        oldest_open_at=oldest,
        arrived=sum(row.first_received_at > now - _HOUR_S for row in newest),
        concluded=sum((row.concluded_at or 0.0) > now - _HOUR_S for row in newest),
        planes_waiting=planes or 0,
    )


def _traffic(connection: Connection, configured: Sequence[str]) -> tuple[DestinationTraffic, ...]:
    states = select(DeliveryRow.destination, DeliveryRow.state, func.count()).group_by(
        DeliveryRow.state, DeliveryRow.destination
    )
    counts: dict[str, dict[str, int]] = {name: {} for name in configured}
    for name, state, count in connection.execute(states).all():
        counts.setdefault(name, {})[str(state)] = count
    paused = {row.name: row for row in connection.execute(select(DestinationRow)).all()}
    return tuple(
        DestinationTraffic(
            name=name,
            counts=of_it,
            oldest_waiting_at=_oldest_waiting(connection, name),
            last_success_at=_last_success(connection, name),
            paused=paused[name].error if name in paused else "",
            paused_at=paused[name].paused_at if name in paused else None,
            uncommitted=_uncommitted(connection, name),
        )
        for name, of_it in counts.items()
    )


def _oldest_waiting(connection: Connection, name: str) -> float | None:
    waiting = select(func.min(DeliveryRow.created_at)).where(
        DeliveryRow.destination == name, DeliveryRow.state.in_(_WAITING)
    )
    return connection.execute(waiting).scalar()


def _last_success(connection: Connection, name: str) -> float | None:
    """Look among those that were tried last: the index has them at its end."""
    found: list[float] = []
    for state in _ARRIVED:
        last = (
            select(DeliveryRow.finished_at)
            .where(DeliveryRow.state == state, DeliveryRow.destination == name)
            .order_by(DeliveryRow.next_attempt_at.desc())
            .limit(_FEW)
        )
        found += [at for at in connection.execute(last).scalars() if at is not None]
    return max(found, default=None)


def _uncommitted(connection: Connection, name: str) -> int:
    asked = select(func.count()).select_from(DeliveryRow).where(DeliveryRow.destination == name, text(TO_COMMIT))
    return connection.execute(asked).scalar_one()


def _conditions(connection: Connection) -> tuple[Condition, ...]:
    rows = connection.execute(select(ConditionRow).order_by(ConditionRow.since)).all()
    return tuple(Condition(row.name, row.text, row.since) for row in rows)


def _deletions(connection: Connection) -> tuple[RecentDeletion, ...]:
    rows = connection.execute(
        select(DeletionRow, StudyRow.study_instance_uid)
        .join(StudyRow, StudyRow.id == DeletionRow.study_id)
        .order_by(DeletionRow.id.desc())
        .limit(_FEW // 4)
    ).all()
    return tuple(
        RecentDeletion(row.study_instance_uid, row.what, row.files, row.size_bytes, row.rule, row.deleted_at)
        for row in rows
    )


def _heard(
    connection: Connection, newest: Sequence[Row[Any]], traffic: Sequence[DestinationTraffic]
) -> dict[str, float]:
    ours = select(SeriesRow.id).where(SeriesRow.study_id.in_(self_test_studies(connection)))
    received = select(InstanceRow.received_at).where(InstanceRow.series_id.not_in(ours))
    received = received.order_by(InstanceRow.id.desc()).limit(1)
    times = {
        "receive": connection.execute(received).scalar(),
        "work": max((row.concluded_at for row in newest if row.concluded_at), default=None),
        "deliver": max((one.last_success_at for one in traffic if one.last_success_at), default=None),
    }
    return {role: at for role, at in times.items() if at is not None}
