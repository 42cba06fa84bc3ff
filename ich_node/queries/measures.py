"""How the node stands, in numbers for a monitoring: no patient, and nothing that grows with the studies."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Connection, func, select

from ich_node.database import (
    AlertRow,
    ConditionRow,
    Database,
    DeliveryRow,
    DestinationRow,
    DriftLookRow,
    InstanceRow,
    SeriesRow,
    StudyRow,
)
from ich_node.database.of_patients import self_test_studies, series_of_patients, studies_of_patients
from ich_node.drift_findings import findings_that_hold
from ich_node.queries.counting import counts_of_patients
from ich_node.queries.workers import running_workers_within
from ich_node.records import OPEN_SERIES, AlertState, DeliveryState, InstanceState, RunningWorker
from ich_node.records.alerts import NOT_ANALYSED, WITHDRAWN

_UNSENT: Final = (DeliveryState.PENDING, DeliveryState.SENDING)
_OPEN: Final = SeriesRow.state.in_(OPEN_SERIES)
_UNTOLD: Final = (AlertState.PENDING, AlertState.SENDING)
NO_ANSWER: Final = "none"
"""What a study says that has no report: it is in progress, or no head CT was expected in it."""


@dataclass(frozen=True, slots=True)
class NodeMeasures:
    """The node at one moment."""

    answers: Mapping[str, int]
    """Studies by what they say."""
    reasons: Mapping[str, int]
    """Studies whose report gives no result, by the name of the reason."""
    series: Mapping[str, int]
    slices_waiting: int
    deliveries: Mapping[tuple[str, str], int]
    """By destination and state."""
    alerts: Mapping[tuple[str, str], int]
    """By channel and state."""
    oldest_waiting_s: Mapping[str, float]
    """By queue; 0 where nothing waits."""
    paused: Mapping[str, float]
    """When a destination that is paused is tried again, in seconds since 1970."""
    conditions: int
    drift_found: int
    """Findings of the newest look that still hold."""
    drift_looked_at: float | None
    model: Mapping[str, Any] | None
    """Of the newest conclusion; None where nothing was concluded yet."""
    workers: tuple[RunningWorker, ...]


def measure_node(database: Database) -> NodeMeasures:
    """Read the numbers of the node, all of one moment."""
    with database.reading() as connection:
        answers, reasons = _studies(connection)
        paused = connection.execute(select(DestinationRow.name, DestinationRow.next_attempt_at)).all()
        return NodeMeasures(
            answers=answers,
            reasons=reasons,
            series=counts_of_patients(connection, SeriesRow.state, ~series_of_patients()),
            slices_waiting=_slices_waiting(connection),
            deliveries=_pairs(connection, DeliveryRow.state, DeliveryRow.destination),
            alerts=_pairs(connection, AlertRow.state, AlertRow.channel),
            oldest_waiting_s=_oldest(connection),
            paused={row.name: row.next_attempt_at for row in paused},
            conditions=connection.execute(select(func.count()).select_from(ConditionRow)).scalar_one(),
            drift_found=len(findings_that_hold(connection)),
            drift_looked_at=connection.execute(select(func.max(DriftLookRow.looked_at))).scalar(),
            model=_model(connection),
            workers=running_workers_within(connection),
        )


def _studies(connection: Connection) -> tuple[dict[str, int], dict[str, int]]:
    """Count what has a result in an index alone; only the others are read."""
    ours = StudyRow.id.in_(self_test_studies(connection))
    answers = counts_of_patients(connection, StudyRow.triage, ours)
    answers.pop(str(None), None)
    reasons: dict[str, int] = {}
    why = (StudyRow.reason, StudyRow.withdrawn)
    without = select(*why, func.count()).where(StudyRow.triage.is_(None), studies_of_patients())
    for reason, withdrawn, count in connection.execute(without.group_by(*why)).all():
        answer = WITHDRAWN if withdrawn else NOT_ANALYSED if reason else NO_ANSWER
        answers[answer] = answers.get(answer, 0) + count
        if reason is not None:
            reasons[reason] = reasons.get(reason, 0) + count
    return answers, reasons


def _pairs(connection: Connection, state: Any, name: Any) -> dict[tuple[str, str], int]:
    rows = connection.execute(select(state, name, func.count()).group_by(state, name)).all()
    return {(of, now): count for now, of, count in rows}


def _slices_waiting(connection: Connection) -> int:
    """Count what is not read yet, and what is read and not scored."""
    unread = (
        select(func.count())
        .select_from(SeriesRow)
        .join(InstanceRow, InstanceRow.series_id == SeriesRow.id)
        .where(_OPEN, series_of_patients(), InstanceRow.state == InstanceState.RECEIVED, InstanceRow.current)
    )
    unscored = select(func.coalesce(func.sum(SeriesRow.planes_waiting), 0)).where(_OPEN, series_of_patients())
    return int(connection.execute(unread).scalar_one() + connection.execute(unscored).scalar_one())


def _oldest(connection: Connection) -> dict[str, float]:
    now = time.time()
    oldest = {
        "series": select(func.min(SeriesRow.first_received_at)).where(_OPEN, series_of_patients()),
        "deliveries": select(func.min(DeliveryRow.created_at)).where(DeliveryRow.state.in_(_UNSENT)),
        "alerts": select(func.min(AlertRow.created_at)).where(AlertRow.state.in_(_UNTOLD)),
    }
    since = {name: connection.execute(query).scalar() for name, query in oldest.items()}
    return {name: 0.0 if at is None else max(0.0, now - at) for name, at in since.items()}


def _model(connection: Connection) -> Any:
    newest = select(StudyRow.rests_on_series_id).where(StudyRow.rests_on_series_id.is_not(None), studies_of_patients())
    series_id = connection.execute(newest.order_by(StudyRow.id.desc()).limit(1)).scalar()
    return connection.execute(select(SeriesRow.model).where(SeriesRow.id == series_id)).scalar()
