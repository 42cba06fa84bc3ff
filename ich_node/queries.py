"""What people ask of the database: the state of studies, of the queue and of the outbox."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, func, or_, select

from ich_node.database import (
    AlertRow,
    ConditionRow,
    Database,
    DeletionRow,
    DeliveryRow,
    DestinationRow,
    InstanceRow,
    LegalHoldRow,
    PlaneRow,
    ResultRow,
    SeriesRow,
    StudyRow,
)
from ich_node.patient_history import history_of
from ich_node.records import OBJECT_OF_KIND, DeliveryState, InstanceState, NotAnalysedReason, SeriesState

_OPEN = (SeriesState.RECEIVING, SeriesState.COMPLETE)
_TAKEN_BACK = (SeriesState.QUARANTINED, SeriesState.REJECTED)


@dataclass(frozen=True, slots=True)
class SeriesStatus:
    """A series for a person to read."""

    series_instance_uid: str
    modality: str
    state: str
    why: str
    """Reason and detail; empty where all is well."""
    slices: int
    unreadable: int
    complete: bool | None
    triage: str | None
    finding: dict[str, Any] | None
    model: dict[str, Any] | None
    steps: dict[str, float] | None
    attempts: int
    number: int | None
    """Series Number, where it is known."""
    planes: int
    """What was scored: slices, or slabs of thin ones."""
    expected: int | None
    """How many images the PACS says it holds."""
    priority: int


@dataclass(frozen=True, slots=True)
class DeliveryStatus:
    """An outbox row for a person to read."""

    destination: str
    kind: str
    revision: int
    state: str
    attempts: int
    error: str
    created_at: float
    finished_at: float | None
    next_attempt_at: float
    sop_instance_uid: str | None
    report_file: str | None
    """Relative to the state folder."""
    commitment: str = ""
    """How far its storage commitment is, in words; empty where none is wanted, or it is there."""

    @property
    def what(self) -> str:
        """Name the object as the configuration does: report, summary, key slices, key objects, presentation."""
        return OBJECT_OF_KIND.get(self.kind, self.kind).replace("_", " ")


@dataclass(frozen=True, slots=True)
class AlertStatus:
    """An alert through one channel for a person to read."""

    identifier: str
    channel: str
    kind: str
    outcome: str
    revision: int
    step: int
    state: str
    attempts: int
    error: str
    answer: str
    created_at: float
    next_attempt_at: float
    sent_at: float | None
    acknowledged_at: float | None
    acknowledged_by: str


@dataclass(frozen=True, slots=True)
class DeletionStatus:
    """What retention deleted of a study."""

    what: str
    files: int
    size_bytes: int
    rule: str
    deleted_at: float


@dataclass(frozen=True, slots=True)
class StudyStatus:
    """A study for a person to read."""

    study_instance_uid: str
    revision: int
    triage: str | None
    reason: str | None
    outcome: str
    """The current answer in words."""
    withdrawn: bool
    old: bool
    """Acquired longer ago than ``series.routine_max_age_h``."""
    rests_on: str | None
    """Series Instance UID that the answer rests on."""
    received_at: float
    prior: str = ""
    """What is known of earlier studies of the patient, in words."""
    series: tuple[SeriesStatus, ...] = ()
    deliveries: tuple[DeliveryStatus, ...] = ()
    alerts: tuple[AlertStatus, ...] = ()
    legal_hold: str = ""
    """Why nothing of it is deleted, and who says so; empty where its days count."""
    deletions: tuple[DeletionStatus, ...] = ()


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


def node_status(database: Database, *, limit: int = 20, uid: str | None = None) -> NodeStatus:
    """Read the state of the node and of its newest studies.

    Args:
        limit: how many studies.
        uid: only the study with this Study or Series Instance UID.
    """
    with database.reading() as connection:
        oldest = connection.execute(
            select(func.min(SeriesRow.first_received_at)).where(SeriesRow.state.in_(_OPEN))
        ).scalar()
        paused = connection.execute(select(DestinationRow.name, DestinationRow.error)).all()
        return NodeStatus(
            series=_counts(connection, SeriesRow.state),
            instances=_counts(connection, InstanceRow.state),
            deliveries=_counts(connection, DeliveryRow.state),
            alerts=_counts(connection, AlertRow.state),
            conditions={row.name: row.text for row in connection.execute(select(ConditionRow)).all()},
            paused_destinations={row.name: row.error for row in paused},
            own_objects_returned=connection.execute(select(func.sum(ResultRow.returned_count))).scalar() or 0,
            oldest_open_s=None if oldest is None else time.time() - oldest,
            legal_holds=connection.execute(_count_holds()).scalar_one(),
            studies=_studies(connection, limit, uid),
        )


def _count_holds() -> Any:
    return select(func.count()).select_from(LegalHoldRow).where(LegalHoldRow.lifted_at.is_(None))


def _counts(connection: Connection, column: Any) -> dict[str, int]:
    rows = connection.execute(select(column, func.count()).group_by(column))
    return {str(state): count for state, count in rows}


def _studies(connection: Connection, limit: int, uid: str | None) -> tuple[StudyStatus, ...]:
    wanted = select(StudyRow).order_by(StudyRow.id.desc()).limit(limit)
    if uid is not None:
        of_series = select(SeriesRow.study_id).where(SeriesRow.series_instance_uid == uid)
        wanted = wanted.where(or_(StudyRow.study_instance_uid == uid, StudyRow.id.in_(of_series)))
    return tuple(_study(connection, row, alone=uid is not None) for row in connection.execute(wanted).all())


def _study(connection: Connection, row: Any, *, alone: bool) -> StudyStatus:
    rows = connection.execute(select(SeriesRow).where(SeriesRow.study_id == row.id).order_by(SeriesRow.id)).all()
    status = tuple(_series(connection, one) for one in rows)
    basis = next((one for one, two in zip(status, rows, strict=True) if two.id == row.rests_on_series_id), None)
    return StudyStatus(
        study_instance_uid=row.study_instance_uid,
        revision=row.revision,
        triage=row.triage,
        reason=row.reason,
        outcome=_outcome(row, rows, status, basis),
        withdrawn=row.withdrawn,
        old=row.old,
        rests_on=None if basis is None or row.triage is None else basis.series_instance_uid,
        received_at=row.created_at,
        prior=history_of(connection, row).in_words() if alone else "",
        series=status,
        deliveries=_deliveries(connection, row.id),
        alerts=_alerts(connection, row.id),
        legal_hold=_legal_hold(connection, row.id),
        deletions=_deletions(connection, row.id) if alone else (),
    )


def _legal_hold(connection: Connection, study_id: int) -> str:
    held = select(LegalHoldRow).where(LegalHoldRow.study_id == study_id, LegalHoldRow.lifted_at.is_(None))
    row = connection.execute(held).first()
    return "" if row is None else f"{row.reason} ({row.placed_by})"


def _deletions(connection: Connection, study_id: int) -> tuple[DeletionStatus, ...]:
    rows = connection.execute(select(DeletionRow).where(DeletionRow.study_id == study_id).order_by(DeletionRow.id))
    return tuple(DeletionStatus(row.what, row.files, row.size_bytes, row.rule, row.deleted_at) for row in rows)


def _series(connection: Connection, row: Any) -> SeriesStatus:
    states = select(InstanceRow.state, func.count()).where(InstanceRow.series_id == row.id, InstanceRow.current)
    counts = {row[0]: row[1] for row in connection.execute(states.group_by(InstanceRow.state))}
    planes = select(func.count()).select_from(PlaneRow).where(PlaneRow.series_id == row.id)
    return SeriesStatus(
        series_instance_uid=row.series_instance_uid,
        modality=row.modality,
        state=row.state,
        why=_why(row),
        slices=sum(counts.values()),
        unreadable=counts.get(InstanceState.UNREADABLE, 0),
        complete=row.complete,
        triage=row.triage,
        finding=row.finding,
        model=row.model,
        steps=row.steps,
        attempts=row.attempts,
        number=(row.choice or {}).get("series_number"),
        planes=connection.execute(planes).scalar_one(),
        expected=row.expected_instances,
        priority=row.priority,
    )


def _why(row: Any) -> str:
    reason = NotAnalysedReason[row.reason].text if row.reason else ""
    return f"{reason} ({row.detail})" if reason and row.detail else reason or row.detail or ""


def _outcome(study: Any, rows: Sequence[Any], series: tuple[SeriesStatus, ...], basis: SeriesStatus | None) -> str:
    """Say a study's answer as one would to a colleague."""
    known = _answer(study, series, basis)
    if any(one.state in _OPEN for one in series):
        return f"{known} so far, in progress" if known else "in progress"
    if known:
        return known
    if quarantined := next((one for one in series if one.state == SeriesState.QUARANTINED), None):
        return f"QUARANTINED: {quarantined.why}"
    reason = study.reason or min(rows, key=_relevance).reason or NotAnalysedReason.ANALYSIS_FAILED.name
    text = NotAnalysedReason[reason].text
    return text if reason == NotAnalysedReason.UNTRAINED_MODEL.name else f"not analysed: {text}"


def _answer(study: Any, series: tuple[SeriesStatus, ...], basis: SeriesStatus | None) -> str:
    """What the study's report says; empty where it has no result."""
    if study.withdrawn:
        return f"WITHDRAWN: {NotAnalysedReason[study.reason].text}"
    if study.triage is None:
        return ""
    if study.doubted and basis is not None and basis.state in _TAKEN_BACK:
        return f"{study.triage}, about to be WITHDRAWN: {basis.why}"
    return _finding(study, basis) + _others(study, series, basis)


def _relevance(row: Any) -> int:
    """Of the series of a study without a result, the one that says most of why comes first."""
    if row.reason is None or row.reason == NotAnalysedReason.OTHER_SERIES_CHOSEN.name:
        return 3
    if row.state in (SeriesState.FAILED, SeriesState.REJECTED):
        return 0
    return 1 if row.head_expected else 2


def _finding(row: Any, basis: SeriesStatus | None) -> str:
    mark = "TEST MODEL: " if basis is not None and basis.finding and basis.finding["test_model"] else ""
    short = ", incomplete" if basis is not None and basis.complete is False else ""
    return f"{mark}{row.triage}{short}"


def _others(row: Any, series: tuple[SeriesStatus, ...], basis: SeriesStatus | None) -> str:
    """Series that say something else than the study, or could say nothing that counts."""
    said = [(one, _says(one)) for one in series if one is not basis or one.state == SeriesState.FAILED]
    differing = [f"{_name(one)}: {says}" for one, says in said if says and says != row.triage]
    return f" ({'; '.join(differing)})" if differing else ""


def _says(series: SeriesStatus) -> str:
    """Empty where nobody expects a series to say anything."""
    if series.state == SeriesState.CONCLUDED:
        return series.triage or "no finding"
    return series.state if series.state in (SeriesState.QUARANTINED, SeriesState.FAILED) else ""


def _name(series: SeriesStatus) -> str:
    return f"series {series.number}" if series.number is not None else f"series …{series.series_instance_uid[-8:]}"


def _deliveries(connection: Connection, study_id: int) -> tuple[DeliveryStatus, ...]:
    rows = connection.execute(
        select(DeliveryRow, ResultRow.path.label("report_file"))
        .outerjoin(
            ResultRow,
            (ResultRow.study_id == DeliveryRow.study_id)
            & (ResultRow.revision == DeliveryRow.revision)
            & (ResultRow.kind == DeliveryRow.kind)
            & (ResultRow.preference == 0),
        )
        .where(DeliveryRow.study_id == study_id)
        .order_by(DeliveryRow.id)
    ).all()
    return tuple(
        DeliveryStatus(
            destination=row.destination,
            kind=row.kind,
            revision=row.revision,
            state=row.state,
            attempts=row.attempts,
            error=row.error or "",
            created_at=row.created_at,
            finished_at=row.finished_at,
            next_attempt_at=row.next_attempt_at,
            sop_instance_uid=row.sop_instance_uid,
            report_file=row.report_file,
            commitment=_commitment(row),
        )
        for row in rows
    )


def _commitment(row: Any) -> str:
    if row.state != DeliveryState.DELIVERED or row.commitment_ask_at is None:
        return ""
    times = "once" if row.commitment_asks == 1 else f"{row.commitment_asks} times"
    asked = f"commitment asked {times}" if row.commitment_asks else "commitment to be asked"
    return row.commitment_error or asked


def _alerts(connection: Connection, study_id: int) -> tuple[AlertStatus, ...]:
    rows = connection.execute(select(AlertRow).where(AlertRow.study_id == study_id).order_by(AlertRow.id)).all()
    return tuple(
        AlertStatus(
            identifier=row.identifier,
            channel=row.channel,
            kind=row.kind,
            outcome=row.outcome,
            revision=row.revision,
            step=row.step,
            state=row.state,
            attempts=row.attempts,
            error=row.error or "",
            answer=row.answer or "",
            created_at=row.created_at,
            next_attempt_at=row.next_attempt_at,
            sent_at=row.sent_at,
            acknowledged_at=row.acknowledged_at,
            acknowledged_by=row.acknowledged_by or "",
        )
        for row in rows
    )
