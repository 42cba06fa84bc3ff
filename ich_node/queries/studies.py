"""Studies as people read them: some at once, so that a page of them takes a handful of questions and not hundreds."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Connection, func, select

from ich_node.database import (
    AlertRow,
    DeletionRow,
    DeliveryRow,
    InstanceRow,
    LegalHoldRow,
    PlaneRow,
    ResultRow,
    SeriesRow,
    StudyRow,
)
from ich_node.patient_history import history_of
from ich_node.queries.states import AlertStatus, DeletionStatus, DeliveryStatus, SeriesStatus, StudyStatus
from ich_node.records import OPEN_SERIES, DeliveryState, InstanceState, NotAnalysedReason, SeriesState

_AT_ONCE: Final = 500
_TAKEN_BACK = (SeriesState.QUARANTINED, SeriesState.REJECTED)

_Rows = dict[int, list[Any]]
"""By study."""


@dataclass(frozen=True, slots=True)
class _Found:
    """What the database says of some studies."""

    series: _Rows
    instances: dict[int, dict[str, int]]
    """By series: how many are in each state."""
    planes: dict[int, int]
    """By series."""
    deliveries: _Rows
    alerts: _Rows
    holds: _Rows


def studies_of(connection: Connection, ids: Sequence[int], *, alone: bool = False) -> list[StudyStatus]:
    """Read the state of some studies, in the order in which they are named.

    Args:
        alone: with what is said only where one study is looked at: earlier studies, and what was deleted.
    """
    return [
        one
        for first in range(0, len(ids), _AT_ONCE)
        for one in _some(connection, ids[first : first + _AT_ONCE], alone=alone)
    ]


def _some(connection: Connection, ids: Sequence[int], *, alone: bool) -> list[StudyStatus]:
    studies = {row.id: row for row in connection.execute(select(StudyRow).where(StudyRow.id.in_(ids))).all()}
    found = _find(connection, ids)
    return [_study(connection, studies[one], found, alone=alone) for one in ids]


def _find(connection: Connection, ids: Sequence[int]) -> _Found:
    series = _by_study(connection, select(SeriesRow).where(SeriesRow.study_id.in_(ids)).order_by(SeriesRow.id))
    series_ids = [row.id for rows in series.values() for row in rows]
    instances: defaultdict[int, dict[str, int]] = defaultdict(dict)
    for series_id, state, count in connection.execute(_count_instances(series_ids)):
        instances[series_id][state] = count
    held = select(LegalHoldRow).where(LegalHoldRow.study_id.in_(ids), LegalHoldRow.lifted_at.is_(None))
    return _Found(
        series=series,
        instances=instances,
        planes={one.series_id: one.planes for one in connection.execute(_count_planes(series_ids))},
        deliveries=_by_study(connection, _deliveries(ids)),
        alerts=_by_study(connection, select(AlertRow).where(AlertRow.study_id.in_(ids)).order_by(AlertRow.id)),
        holds=_by_study(connection, held),
    )


def _by_study(connection: Connection, wanted: Any) -> _Rows:
    found: defaultdict[int, list[Any]] = defaultdict(list)
    for row in connection.execute(wanted).all():
        found[row.study_id].append(row)
    return found


def _count_instances(series_ids: Sequence[int]) -> Any:
    of_series = select(InstanceRow.series_id, InstanceRow.state, func.count())
    current = of_series.where(InstanceRow.series_id.in_(series_ids), InstanceRow.current)
    return current.group_by(InstanceRow.series_id, InstanceRow.state)


def _count_planes(series_ids: Sequence[int]) -> Any:
    of_series = select(PlaneRow.series_id, func.count().label("planes")).where(PlaneRow.series_id.in_(series_ids))
    return of_series.group_by(PlaneRow.series_id)


def _deliveries(ids: Sequence[int]) -> Any:
    return (
        select(DeliveryRow, ResultRow.path.label("report_file"))
        .outerjoin(
            ResultRow,
            (ResultRow.study_id == DeliveryRow.study_id)
            & (ResultRow.revision == DeliveryRow.revision)
            & (ResultRow.kind == DeliveryRow.kind)
            & (ResultRow.preference == 0),
        )
        .where(DeliveryRow.study_id.in_(ids))
        .order_by(DeliveryRow.id)
    )


def _study(connection: Connection, row: Any, found: _Found, *, alone: bool) -> StudyStatus:
    rows = found.series.get(row.id, [])
    status = tuple(_series(one, found) for one in rows)
    history = history_of(connection, row) if alone else None
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
        prior="" if history is None else history.in_words(),
        prior_undated="" if history is None else history.in_words(dated=False),
        series=status,
        deliveries=tuple(_delivery(one) for one in found.deliveries.get(row.id, ())),
        alerts=tuple(_alert(one) for one in found.alerts.get(row.id, ())),
        legal_hold=next((f"{one.reason} ({one.placed_by})" for one in found.holds.get(row.id, ())), ""),
        deletions=_deletions(connection, row.id) if alone else (),
    )


def _deletions(connection: Connection, study_id: int) -> tuple[DeletionStatus, ...]:
    rows = connection.execute(select(DeletionRow).where(DeletionRow.study_id == study_id).order_by(DeletionRow.id))
    return tuple(DeletionStatus(row.what, row.files, row.size_bytes, row.rule, row.deleted_at) for row in rows)


def _series(row: Any, found: _Found) -> SeriesStatus:
    counts = found.instances.get(row.id, {})
    return SeriesStatus(
        series_instance_uid=row.series_instance_uid,
        modality=row.modality,
        state=row.state,
        why=why_of_series(row),
        slices=sum(counts.values()),
        unreadable=counts.get(InstanceState.UNREADABLE, 0),
        complete=row.complete,
        triage=row.triage,
        finding=row.finding,
        model=row.model,
        steps=row.steps,
        attempts=row.attempts,
        number=(row.choice or {}).get("series_number"),
        planes=found.planes.get(row.id, 0),
        expected=row.expected_instances,
        priority=row.priority,
    )


def why_of_series(row: Any) -> str:
    """Say why a series is as it is: reason and detail; empty where all is well."""
    reason = NotAnalysedReason[row.reason].text if row.reason else ""
    return f"{reason} ({row.detail})" if reason and row.detail else reason or row.detail or ""


def _outcome(study: Any, rows: Sequence[Any], series: tuple[SeriesStatus, ...], basis: SeriesStatus | None) -> str:
    """Say a study's answer as one would to a colleague."""
    known = _answer(study, series, basis)
    if any(one.state in OPEN_SERIES for one in series):
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


def _delivery(row: Any) -> DeliveryStatus:
    return DeliveryStatus(
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


def _commitment(row: Any) -> str:
    if row.state != DeliveryState.DELIVERED or row.commitment_ask_at is None:
        return ""
    times = "once" if row.commitment_asks == 1 else f"{row.commitment_asks} times"
    asked = f"commitment asked {times}" if row.commitment_asks else "commitment to be asked"
    return row.commitment_error or asked


def _alert(row: Any) -> AlertStatus:
    return AlertStatus(
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
