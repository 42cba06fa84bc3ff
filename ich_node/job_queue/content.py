"""What is known of a series: to plan its planes, and to conclude it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from sqlalchemy import Connection, select

from ich_node.database import Database, InstanceRow, PlaneRow, SeriesRow
from ich_node.job_queue.facts import facts_from_json, tissue_from_json
from ich_node.records import (
    UNREADABLE_REASONS,
    InstanceState,
    NotAnalysedReason,
    PatientMarks,
    PlaneMember,
    PlaneScore,
    SeriesContent,
    SeriesState,
    SiblingSeries,
    SliceFacts,
    StoredInstance,
    StoredPlane,
    Triage,
)


@dataclass(frozen=True, slots=True, eq=False)
class SeriesPlan:
    """What the planes of a series are planned from."""

    facts: tuple[SliceFacts, ...]
    """Of the slices that can be scored."""
    paths: dict[str, str]
    """File of each SOP instance, relative to the state folder."""
    planes: tuple[StoredPlane, ...]
    """Scored with this model."""
    of_other_models: tuple[int, ...]
    """Numbers of planes that other models have scored."""
    siblings: tuple[SiblingSeries, ...]
    concluded_before: bool
    planes_waiting: int
    """As it was last noted."""


def load_plan(database: Database, series_id: int, model_sha256: str) -> SeriesPlan:
    """Read what the plan of a series' planes is made from."""
    with database.reading() as connection:
        rows = connection.execute(
            select(InstanceRow.sop_instance_uid, InstanceRow.path, InstanceRow.facts).where(
                InstanceRow.series_id == series_id,
                InstanceRow.current,
                InstanceRow.state == InstanceState.DECODED,
                InstanceRow.path.is_not(None),
            )
        ).all()
        planes = connection.execute(
            select(PlaneRow.id, PlaneRow.members, PlaneRow.logits, PlaneRow.model_sha256).where(
                PlaneRow.series_id == series_id
            )
        ).all()
        siblings = _siblings(connection, series_id)
        series = connection.execute(
            select(SeriesRow.concluded_at, SeriesRow.planes_waiting).where(SeriesRow.id == series_id)
        ).one()
    facts = [one for row in rows for one in facts_from_json(row.facts)]
    return SeriesPlan(
        facts=tuple(one for one in facts if one.reason is None),
        paths={row.sop_instance_uid: row.path for row in rows},
        planes=tuple(
            StoredPlane(one.id, _members(one), tuple(one.logits)) for one in planes if one.model_sha256 == model_sha256
        ),
        of_other_models=tuple(one.id for one in planes if one.model_sha256 != model_sha256),
        siblings=siblings,
        concluded_before=series.concluded_at is not None,
        planes_waiting=series.planes_waiting,
    )


def load_content(database: Database, series_id: int, model_sha256: str | None) -> SeriesContent:
    """Read everything known of a series. Planes of another model than ``model_sha256`` are left out."""
    with database.reading() as connection:
        rows = connection.execute(
            select(InstanceRow).where(InstanceRow.series_id == series_id, InstanceRow.current).order_by(InstanceRow.id)
        ).all()
        planes = connection.execute(
            select(PlaneRow).where(PlaneRow.series_id == series_id, PlaneRow.model_sha256 == model_sha256)
        ).all()
        series = connection.execute(select(SeriesRow).where(SeriesRow.id == series_id)).one()
        siblings = _siblings(connection, series_id)
        in_two_studies = _is_in_two_studies(connection, series)
    facts = tuple(one for row in rows for one in facts_from_json(row.facts))
    without_facts = sum(row.state == InstanceState.UNREADABLE and not row.facts for row in rows)
    declined = [row.reason for row in rows if row.state == InstanceState.NOT_NEEDED and row.reason]
    released = series.released_instance_id
    return SeriesContent(
        facts=facts,
        planes=tuple(_plane(row) for row in planes),
        instances=tuple(
            StoredInstance(row.id, row.sop_instance_uid, row.sop_class_uid, row.path)
            for row in rows
            if row.path is not None
        ),
        unreadable=without_facts + sum(one.reason in UNREADABLE_REASONS for one in facts),
        declined=tuple(NotAnalysedReason[name] for name in declined),
        waiting=sum(row.state == InstanceState.RECEIVED for row in rows),
        expected_instances=series.expected_instances,
        marks=_marks_to_judge(rows, released),
        in_two_studies=in_two_studies and not (released is not None and all(row.id <= released for row in rows)),
        stamp=stamp_of([row.id for row in rows]),
        siblings=siblings,
        concluded_before=series.concluded_at is not None,
    )


def stamp_of(instance_ids: Sequence[int]) -> tuple[int, int]:
    """Give what changes whenever the current instances of a series do."""
    return len(instance_ids), sum(instance_ids)


def _marks_to_judge(rows: Sequence[Any], released: int | None) -> tuple[PatientMarks, ...]:
    """What a person has released counts as one: its newest instance speaks for it."""
    if released is not None:
        trusted = [row for row in rows if row.id <= released]
        rows = [*trusted[-1:], *(row for row in rows if row.id > released)]
    return tuple(PatientMarks(**row.marks) for row in rows if row.marks)


def _is_in_two_studies(connection: Connection, series: Any) -> bool:
    other = (
        select(InstanceRow.id)
        .join(SeriesRow, SeriesRow.id == InstanceRow.series_id)
        .where(
            SeriesRow.series_instance_uid == series.series_instance_uid,
            SeriesRow.id != series.id,
            SeriesRow.state != SeriesState.REJECTED,
            InstanceRow.current,
        )
    )
    return connection.execute(other.limit(1)).first() is not None


def _siblings(connection: Connection, series_id: int) -> tuple[SiblingSeries, ...]:
    study_id = select(SeriesRow.study_id).where(SeriesRow.id == series_id).scalar_subquery()
    rows = connection.execute(
        select(SeriesRow.id, SeriesRow.series_instance_uid, SeriesRow.state, SeriesRow.triage, SeriesRow.choice).where(
            SeriesRow.study_id == study_id, SeriesRow.id != series_id
        )
    )
    return tuple(
        SiblingSeries(
            id=row.id,
            series_instance_uid=row.series_instance_uid,
            state=SeriesState(row.state),
            triage=Triage(row.triage) if row.triage else None,
            choice=row.choice,
        )
        for row in rows
    )


def _plane(row: Any) -> PlaneScore:
    members = _members(row)
    middle = members[(len(members) - 1) // 2]
    return PlaneScore(
        sop_instance_uid=middle.sop_instance_uid,
        frame=middle.frame,
        position_mm=row.position_mm,
        logits=tuple(row.logits),
        embedding=np.frombuffer(row.embedding, dtype="<f2"),
        members=members,
        tissue=tissue_from_json(row.tissue),
    )


def _members(row: Any) -> tuple[PlaneMember, ...]:
    return tuple(PlaneMember(uid, frame, position_mm) for uid, frame, position_mm in row.members)
