"""What people ask of the database: the state of the queue, of the outbox and of the newest studies."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from sqlalchemy import Connection, func, or_, select

from ich_node.database import (
    AlertRow,
    ConditionRow,
    Database,
    DeliveryRow,
    DestinationRow,
    InstanceRow,
    ResultRow,
    SeriesRow,
    StudyRow,
)
from ich_node.database.of_patients import self_test_studies, series_of_patients, studies_of_patients
from ich_node.queries.counting import count_holds, counts, counts_of_patients
from ich_node.queries.self_tests import last_within
from ich_node.queries.states import StudyStatus
from ich_node.queries.studies import studies_of
from ich_node.records import OPEN_SERIES
from ich_node.records.self_tests import SelfTestStatus


@dataclass(frozen=True, slots=True)
class NodeStatus:
    """The whole node for a person to read."""

    series: dict[str, int]
    """How many series are in each state."""
    instances: dict[str, int]
    deliveries: dict[str, int]
    paused_destinations: dict[str, str]
    """Name and why."""
    own_objects_returned: int
    """How often peers sent this node's own objects back."""
    oldest_open_s: float | None
    """Since when the longest waiting series has been open."""
    studies: tuple[StudyStatus, ...] = field(default=())
    alerts: dict[str, int] = field(default_factory=dict)
    conditions: dict[str, str] = field(default_factory=dict)
    """What the watchdog found, by name."""
    mode: str = "live"
    """Of the configuration: whether results leave the node."""
    legal_holds: int = 0
    stays: dict[str, str] = field(default_factory=dict)
    """What is not committed in time or kept past its days, by name."""
    self_test: SelfTestStatus | None = None
    """The one that ended last; None where none has."""


def node_status(database: Database, *, limit: int = 20, uid: str | None = None) -> NodeStatus:
    """Read the state of the node and of its newest studies.

    Args:
        limit: how many studies.
        uid: only the study with this Study or Series Instance UID.
    """
    with database.reading() as connection:
        opened = (SeriesRow.state.in_(OPEN_SERIES), series_of_patients())
        oldest = connection.execute(select(func.min(SeriesRow.first_received_at)).where(*opened)).scalar()
        of_ours = select(SeriesRow.id).where(SeriesRow.study_id.in_(self_test_studies(connection)))
        paused = connection.execute(select(DestinationRow.name, DestinationRow.error)).all()
        return NodeStatus(
            series=counts_of_patients(connection, SeriesRow.state, ~series_of_patients()),
            instances=counts_of_patients(connection, InstanceRow.state, InstanceRow.series_id.in_(of_ours)),
            deliveries=counts(connection, DeliveryRow.state),
            alerts=counts(connection, AlertRow.state),
            conditions={row.name: row.text for row in connection.execute(select(ConditionRow)).all()},
            paused_destinations={row.name: row.error for row in paused},
            own_objects_returned=connection.execute(select(func.sum(ResultRow.returned_count))).scalar() or 0,
            oldest_open_s=None if oldest is None else time.time() - oldest,
            legal_holds=count_holds(connection),
            self_test=last_within(connection),
            studies=_studies(connection, limit, uid),
        )


def study_status(database: Database, study_instance_uid: str) -> StudyStatus | None:
    """Read the state of one study; None where there is no such study."""
    wanted = select(StudyRow.id).where(StudyRow.study_instance_uid == study_instance_uid, studies_of_patients())
    with database.reading() as connection:
        return next(iter(studies_of(connection, connection.execute(wanted).scalars().all(), alone=True)), None)


def _studies(connection: Connection, limit: int, uid: str | None) -> tuple[StudyStatus, ...]:
    wanted = select(StudyRow.id).where(studies_of_patients()).order_by(StudyRow.id.desc()).limit(limit)
    if uid is not None:
        of_series = select(SeriesRow.study_id).where(SeriesRow.series_instance_uid == uid)
        wanted = wanted.where(or_(StudyRow.study_instance_uid == uid, StudyRow.id.in_(of_series)))
    return tuple(studies_of(connection, connection.execute(wanted).scalars().all(), alone=uid is not None))
