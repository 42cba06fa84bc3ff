"""Somebody answers an alert: what it was, how it stands, and that it was seen."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Connection, and_, func, or_, select, update

from ich_node.database import AlertRow, Database, StudyRow
from ich_node.job_queue.alert_outbox import alert_of
from ich_node.records import Alert, AlertState

_OPEN = (AlertState.PENDING, AlertState.SENDING)
_TOLD = (AlertState.SENT, AlertState.UNANSWERED)
_ANSWERABLE = (*_OPEN, *_TOLD, AlertState.DEAD)


@dataclass(frozen=True, slots=True)
class AskedAlert:
    """An alert of a study, and how it stands."""

    alert: Alert
    state: AlertState
    sent_at: float | None
    acknowledged_at: float | None
    acknowledged_by: str
    changed: bool
    """A newer alert says something else of the study."""

    @property
    def answerable(self) -> bool:
        """Somebody may still acknowledge it: it was tried, and nobody has."""
        return self.acknowledged_at is None and self.state in _ANSWERABLE and self.alert.attempts > 0


def find_alert(database: Database, identifier: str) -> AskedAlert | None:
    """Look an alert of a study up; None where there is none of that identifier.

    Raises:
        DatabaseBusy: the database stayed locked.
    """
    with database.reading() as connection:
        row = _named(connection, identifier)
        if row is None:
            return None
        return AskedAlert(
            alert=alert_of(connection, row, row.attempts),
            state=AlertState(row.state),
            sent_at=row.sent_at,
            acknowledged_at=row.acknowledged_at,
            acknowledged_by=row.acknowledged_by or "",
            changed=_first_that_differs(connection, row) is not None,
        )


def acknowledge(database: Database, what: str, who: str) -> int:
    """Note that somebody has seen an alert: the alerts of its study count as seen, and what escalates is stopped.

    What was told of the study later and says something else does not: nobody has seen that yet.

    Args:
        what: identifier of an alert, or a Study Instance UID (all its alerts).
        who: for the record.

    Returns:
        How many alerts were acknowledged; 0 where there is none of that name.

    Raises:
        DatabaseBusy: the database stayed locked; nothing was noted.
    """
    seen = {"acknowledged_at": time.time(), "acknowledged_by": who[:64]}
    with database.writing() as connection:
        named = _named(connection, what)
        mine = AlertRow.id.in_(_of_study(connection, what) if named is None else _seen_with(connection, named))
        unseen = update(AlertRow).where(mine, AlertRow.acknowledged_at.is_(None))
        spared = {"state": AlertState.SUPERSEDED, "error": f"acknowledged by {who}"}
        stopped = connection.execute(unseen.where(AlertRow.state == AlertState.WAITING).values(seen | spared))
        told: ColumnElement[bool] = AlertRow.state.in_(_TOLD)
        if named is not None:  # no answer of the receiver came, yet here is somebody who has it
            told = or_(told, and_(AlertRow.id == named.id, AlertRow.state == AlertState.DEAD))
        done = connection.execute(unseen.where(told).values(seen | {"state": AlertState.ACKNOWLEDGED}))
        not_told = AlertRow.state.in_((*_OPEN, AlertState.DEAD))
        noted = connection.execute(unseen.where(not_told).values(seen))
        return stopped.rowcount + done.rowcount + noted.rowcount


def _named(connection: Connection, identifier: str) -> Any:
    of_study = (AlertRow.identifier == identifier.upper(), AlertRow.study_id.is_not(None))
    return connection.execute(select(AlertRow).where(*of_study)).first()


def _first_that_differs(connection: Connection, row: Any) -> int | None:
    """Give the first alert of the study after this one that says something else."""
    later = select(func.min(AlertRow.id)).where(
        AlertRow.study_id == row.study_id, AlertRow.id > row.id, AlertRow.outcome != row.outcome
    )
    return connection.execute(later).scalar()


def _seen_with(connection: Connection, row: Any) -> list[int]:
    alerts = select(AlertRow.id).where(AlertRow.study_id == row.study_id)
    end = _first_that_differs(connection, row)
    if end is not None:
        alerts = alerts.where(AlertRow.id < end)
    return list(connection.execute(alerts).scalars())


def _of_study(connection: Connection, study_instance_uid: str) -> list[int]:
    study = select(StudyRow.id).where(StudyRow.study_instance_uid == study_instance_uid)
    return list(connection.execute(select(AlertRow.id).where(AlertRow.study_id.in_(study))).scalars())
