"""The statements by which images are entered. Building one takes as long as running it, so each is built once."""

from __future__ import annotations

from typing import Final

from sqlalchemy import ColumnElement, bindparam, case, delete, exists, insert, select, update

from ich_node.database import (
    InstanceRow,
    OpenAssociationRow,
    Prepared,
    RejectionRow,
    ResultRow,
    SeriesRow,
    StudyRow,
)
from ich_node.records import SeriesState

LOOK_UP: Final = Prepared(
    select(
        select(InstanceRow.id)
        .where(InstanceRow.sop_instance_uid == bindparam("uid"), InstanceRow.sha256 == bindparam("sha256"))
        .where(InstanceRow.path.is_not(None))
        .scalar_subquery()
        .label("held"),
        select(ResultRow.id).where(ResultRow.sop_instance_uid == bindparam("uid")).scalar_subquery().label("result_id"),
    )
)
FIND_REJECTION: Final = select(RejectionRow.reason).where(RejectionRow.sop_instance_uid == bindparam("uid"))
FIND_SERIES: Final = Prepared(
    select(SeriesRow.id, SeriesRow.study_id, SeriesRow.images_deleted_at, SeriesRow.old, SeriesRow.priority)
    .add_columns(
        StudyRow.self_test,
        exists().where(InstanceRow.sop_instance_uid == bindparam("uid")).label("has_versions"),
        FIND_REJECTION.scalar_subquery().label("rejected"),
        select(OpenAssociationRow.lease_expires_at)
        .where(OpenAssociationRow.series_id == SeriesRow.id, OpenAssociationRow.association == bindparam("name"))
        .scalar_subquery()
        .label("held_until"),
    )
    .join(StudyRow, StudyRow.id == SeriesRow.study_id)
    .where(StudyRow.study_instance_uid == bindparam("study"), SeriesRow.series_instance_uid == bindparam("series"))
)
"""With all that the usual image needs to know, in one statement."""
FIND_STUDY: Final = Prepared(select(StudyRow.self_test).where(StudyRow.study_instance_uid == bindparam("study")))
FIND_STUDY_ROW: Final = Prepared(
    select(StudyRow.id, StudyRow.priority, StudyRow.old).where(StudyRow.study_instance_uid == bindparam("study"))
)
ADD_STUDY: Final = Prepared(insert(StudyRow))
ADD_SERIES: Final = Prepared(insert(SeriesRow))
FIND_VERSIONS: Final = Prepared(
    select(
        InstanceRow.id,
        InstanceRow.sha256,
        InstanceRow.path,
        InstanceRow.series_id,
        InstanceRow.current,
        SeriesRow.state.label("series_state"),
    )
    .join(SeriesRow, SeriesRow.id == InstanceRow.series_id)
    .where(InstanceRow.sop_instance_uid == bindparam("uid"))
)
ADD_INSTANCE: Final = Prepared(insert(InstanceRow))
PAUSE_S: Final[ColumnElement[float]] = bindparam("now") - SeriesRow.last_received_at
REOPEN_SERIES: Final = Prepared(
    update(SeriesRow)
    .where(SeriesRow.id == bindparam("series_id"), SeriesRow.state != SeriesState.QUARANTINED)
    .values(
        longest_pause_s=case((SeriesRow.longest_pause_s < PAUSE_S, PAUSE_S), else_=SeriesRow.longest_pause_s),
        last_received_at=bindparam("now"),
        state=SeriesState.RECEIVING,
        due_at=bindparam("due"),
        attempts=0,
        not_before=0.0,
        reason=None,
        detail=None,
        closed_at=None,
    )
)
RENEW_ASSOCIATION: Final = Prepared(
    update(OpenAssociationRow)
    .where(OpenAssociationRow.association == bindparam("name"), OpenAssociationRow.series_id == bindparam("held"))
    .values(lease_expires_at=bindparam("until"))
)
ADD_ASSOCIATION: Final = Prepared(insert(OpenAssociationRow))
CLOSE_ASSOCIATION: Final = Prepared(
    delete(OpenAssociationRow).where(OpenAssociationRow.association == bindparam("name"))
)
SENT: Final = Prepared(select(OpenAssociationRow.series_id).where(OpenAssociationRow.association == bindparam("name")))
HELD: Final = select(OpenAssociationRow.series_id).where(
    OpenAssociationRow.series_id.in_(bindparam("sent", expanding=True)),
    OpenAssociationRow.lease_expires_at >= bindparam("now"),
)
MAY_CLOSE: Final = select(SeriesRow.id, SeriesRow.due_at, SeriesRow.last_received_at, SeriesRow.longest_pause_s).where(
    SeriesRow.id.in_(bindparam("sent", expanding=True)),
    SeriesRow.state == SeriesState.RECEIVING,
    SeriesRow.concluded_at.is_(None),
)
SET_DUE: Final = Prepared(
    update(SeriesRow).where(SeriesRow.id == bindparam("series_id")).values(due_at=bindparam("due"))
)
