"""The current answer of every study, for who judges answers: what was said, by which model, of which images."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import Any, Final

from sqlalchemy import Connection, and_, func, select

from ich_node.database import Database, InstanceRow, ResultRow, SeriesRow, StudyRow
from ich_node.database.of_patients import studies_of_patients
from ich_node.job_queue.facts import facts_from_json
from ich_node.job_queue.findings import finding_from_json
from ich_node.queries.states import StudyStatus
from ich_node.queries.studies import studies_of
from ich_node.records import OPEN_SERIES, REPORT_KIND, SliceFacts, StudyResult, Triage

_AT_ONCE: Final = 200


def study_results(database: Database, wanted: Collection[str]) -> tuple[StudyResult, ...]:
    """Read the answers of patients' studies.

    Args:
        wanted: Study Instance UIDs of those of which everything is told; of the others it is told that they are there.
    """
    found = []
    with database.reading() as connection:
        key = select(StudyRow.id, StudyRow.study_instance_uid, StudyRow.triage, StudyRow.created_at)
        rows = connection.execute(key.where(studies_of_patients()).order_by(StudyRow.id)).all()
        ids = [row.id for row in rows if row.study_instance_uid in wanted]
        for row in rows:
            if row.study_instance_uid not in wanted:
                triage = Triage(row.triage) if row.triage else None
                found.append(StudyResult(row.study_instance_uid, triage, received_at=row.created_at))
        for first in range(0, len(ids), _AT_ONCE):
            found += list(_some(connection, ids[first : first + _AT_ONCE]))
    return tuple(found)


def report_files(database: Database, wanted: Collection[str]) -> dict[str, str]:
    """Give the file of each study's current report, relative to the state folder, where it is there."""
    current = (
        select(StudyRow.study_instance_uid, ResultRow.path)
        .join(ResultRow, and_(ResultRow.study_id == StudyRow.id, ResultRow.revision == StudyRow.revision))
        .where(ResultRow.kind == REPORT_KIND, ResultRow.path.is_not(None))
        .order_by(ResultRow.preference.desc())
    )
    with database.reading() as connection:
        rows = connection.execute(current).all()
    return {row.study_instance_uid: str(row.path) for row in rows if row.study_instance_uid in wanted}


def _some(connection: Connection, ids: Sequence[int]) -> Iterator[StudyResult]:
    statuses = dict(zip(ids, studies_of(connection, ids), strict=True))
    told = _series_told_of(connection, ids)
    facts = _facts(connection, [row.id for row in told.values()])
    for number, status in statuses.items():
        series = told.get(number)
        yield _result(status, series, facts.get(series.id) if series is not None else None)


def _series_told_of(connection: Connection, ids: Sequence[int]) -> dict[int, Any]:
    """Give of each study the series that its answer rests on; where there is none, one that was to have one."""
    columns = (SeriesRow.id, SeriesRow.study_id, SeriesRow.series_instance_uid, SeriesRow.station_name)
    rests = (SeriesRow.id == StudyRow.rests_on_series_id).label("rests")
    rows = connection.execute(
        select(*columns, rests)
        .join(StudyRow, StudyRow.id == SeriesRow.study_id)
        .where(SeriesRow.study_id.in_(ids))
        .order_by(rests, SeriesRow.head_expected, SeriesRow.id.desc())
    ).all()
    return {row.study_id: row for row in rows}


def _facts(connection: Connection, series: Sequence[int]) -> dict[int, SliceFacts]:
    """Give what one image of each series tells; nothing where none was read."""
    first = select(func.min(InstanceRow.id)).where(
        InstanceRow.series_id.in_(series), InstanceRow.current, InstanceRow.facts.is_not(None)
    )
    rows = connection.execute(
        select(InstanceRow.series_id, InstanceRow.facts).where(
            InstanceRow.id.in_(first.group_by(InstanceRow.series_id))
        )
    ).all()
    return {row.series_id: facts[0] for row in rows if (facts := facts_from_json(row.facts))}


def _result(status: StudyStatus, series: Any | None, facts: SliceFacts | None) -> StudyResult:
    basis = next((one for one in status.series if one.series_instance_uid == status.rests_on), None)
    known: dict[str, Any] = {
        "station_name": "" if series is None else series.station_name,
        "slice_thickness_mm": None if facts is None else facts.slice_thickness_mm,
        "age_years": None if facts is None else facts.patient_age_years,
        "received_at": status.received_at,
        "in_progress": any(one.state in OPEN_SERIES for one in status.series),
    }
    if status.triage is None or status.withdrawn:
        return StudyResult(status.study_instance_uid, None, status.outcome.removeprefix("not analysed: "), **known)
    stored = None if basis is None else basis.finding
    if basis is None or stored is None or not stored.get("probabilities"):
        return StudyResult(status.study_instance_uid, Triage(status.triage), **known)
    finding, model = finding_from_json(stored), basis.model or {}
    names = ("name", "version", "sha256")
    return StudyResult(
        status.study_instance_uid,
        Triage(status.triage),
        probabilities=finding.probabilities,
        presence=finding.presence,
        thresholds=finding.thresholds,
        complete=finding.completeness.complete,
        test_model=finding.test_model,
        model=(str(model["name"]), str(model["version"]), str(model["sha256"])) if model.keys() >= set(names) else None,
        **known,
    )
