"""The alerter's side: claim what is to be told, note how it went, and wait for who must acknowledge."""

from __future__ import annotations

import time
from collections.abc import Collection
from pathlib import Path
from typing import Any

from sqlalchemy import ColumnElement, Connection, exists, func, literal, or_, select, text, update
from sqlalchemy.orm import aliased

from ich_node.database import AlertRow, Database, InstanceRow, ResultRow, SeriesRow, StudyRow
from ich_node.database.tables import AWAITED
from ich_node.errors import StorageUnavailable
from ich_node.job_queue.outbox import DeliveryRules
from ich_node.patient_history import history_of
from ich_node.records import REPORT_KIND, Alert, AlertKind, AlertState, Triage
from ich_node.stored_files import StoredFiles

_A_MINUTE_S = 60.0
_SECONDS_A_DAY = 86400.0
_OPEN = (AlertState.PENDING, AlertState.SENDING)


def claim_alert(
    database: Database,
    owner: str,
    *,
    lease_s: float,
    busy: Collection[str],
    most_per_minute: dict[str, int],
    of_studies: bool = True,
) -> Alert | None:
    """Take the lease of the alert that is to be told next: by priority, what is positive first, then the oldest.

    While another alerter tells of a study through a channel, what else is to be told of it there waits: alerts come in
    their order.

    Args:
        busy: names of channels to leave alone, since something is being told there.
        most_per_minute: for each channel there is.
        of_studies: False: only what is about the node itself.
    """
    now = time.time()
    left_over = or_(AlertRow.lease_expires_at < now, AlertRow.lease_owner == owner)
    claimable = (
        select(AlertRow)
        .outerjoin(StudyRow, StudyRow.id == AlertRow.study_id)
        .where(
            AlertRow.state.in_((AlertState.PENDING, AlertState.WAITING, AlertState.SENDING)),
            AlertRow.next_attempt_at <= now,
            or_(AlertRow.state != AlertState.SENDING, left_over),
            or_(AlertRow.study_id.is_(None), literal(of_studies)),
        )
        .order_by(
            func.coalesce(StudyRow.priority, 0).desc(),
            (AlertRow.outcome == Triage.POSITIVE).desc(),
            AlertRow.next_attempt_at,
            AlertRow.id,
        )
    )
    with database.reading() as connection:
        full = _channels_at_their_limit(connection, most_per_minute, now)
        free = [name for name in most_per_minute if name not in busy and name not in full]
        claimable = claimable.where(AlertRow.channel.in_(free), ~_is_told_by_another(owner, now)).limit(1)
        if not connection.execute(claimable).first():
            return None
    with database.writing() as connection:
        row = connection.execute(claimable).first()
        if row is None:
            return None
        values = {"state": AlertState.SENDING, "attempts": row.attempts + 1, "lease_owner": owner,
                  "lease_expires_at": now + lease_s}  # fmt: skip
        connection.execute(update(AlertRow).where(AlertRow.id == row.id).values(values))
        return alert_of(connection, row, row.attempts + 1)


def _is_told_by_another(owner: str, now: float) -> ColumnElement[bool]:
    telling = aliased(AlertRow)
    return exists().where(
        telling.state == AlertState.SENDING, telling.lease_owner != owner, telling.lease_expires_at >= now,
        telling.study_id == AlertRow.study_id, telling.channel == AlertRow.channel,
    )  # fmt: skip


def _channels_at_their_limit(connection: Connection, most_per_minute: dict[str, int], now: float) -> list[str]:
    sent = select(AlertRow.channel, func.count().label("alerts")).where(AlertRow.sent_at > now - _A_MINUTE_S)
    rows = connection.execute(sent.group_by(AlertRow.channel)).all()
    return [row.channel for row in rows if row.alerts >= most_per_minute.get(row.channel, 0)]


def alert_of(connection: Connection, row: Any, attempts: int) -> Alert:
    """Say what an alert is, and what its study says now where that is still what it tells of."""
    study = connection.execute(select(StudyRow).where(StudyRow.id == row.study_id)).first()
    finding = {} if study is None else _finding(connection, study, row)
    return Alert(
        id=row.id,
        identifier=row.identifier,
        kind=AlertKind(row.kind),
        outcome=row.outcome,
        told_before=row.told_before,
        channel=row.channel,
        step=row.step,
        study_id=row.study_id,
        revision=row.revision,
        source_file=None if study is None else _source(connection, study, row),
        attempts=attempts,
        created_at=row.created_at,
        probabilities=finding.get("probabilities", {}),
        presence=finding.get("presence", {}),
        study_instance_uid="" if study is None else study.study_instance_uid,
        first_identifier=_first_identifier(connection, row),
        test_model=finding.get("test_model", False),
        history=None if study is None else history_of(connection, study),
        text=row.text or "",
    )


def _finding(connection: Connection, study: Any, row: Any) -> dict[str, Any]:
    """What the alert tells of; nothing where no result stands."""
    if row.kind == AlertKind.PRELIMINARY:
        return study.early_finding or {}
    if study.triage != row.outcome:
        return {}
    stored = select(SeriesRow.finding).where(SeriesRow.id == study.rests_on_series_id)
    return connection.execute(stored).scalar() or {}


def _first_identifier(connection: Connection, row: Any) -> str:
    if row.study_id is None:
        return str(row.identifier)
    of_study = select(AlertRow.identifier).where(
        AlertRow.study_id == row.study_id, AlertRow.channel == row.channel, AlertRow.attempts > 0
    )
    return connection.execute(of_study.order_by(AlertRow.id).limit(1)).scalar() or str(row.identifier)


def _source(connection: Connection, study: Any, row: Any) -> str | None:
    if row.revision:
        report = select(ResultRow.path).where(
            ResultRow.study_id == row.study_id, ResultRow.revision <= row.revision, ResultRow.kind == REPORT_KIND,
            ResultRow.path.is_not(None),
        )  # fmt: skip
        newest = report.order_by(ResultRow.revision.desc(), ResultRow.preference).limit(1)
        return connection.execute(newest).scalar()
    image = select(InstanceRow.path).where(
        InstanceRow.series_id == study.early_series_id, InstanceRow.current, InstanceRow.path.is_not(None)
    )
    return connection.execute(image.order_by(InstanceRow.id).limit(1)).scalar()


def bury_unknown_channels(database: Database, known: Collection[str]) -> int:
    """Give up what is for channels that the configuration does not name any more; return how many.

    They would wait for ever, unseen.
    """
    waits = (AlertState.PENDING, AlertState.WAITING, AlertState.SENDING)
    lost = (AlertRow.state.in_(waits), AlertRow.channel.not_in(known))
    with database.reading() as connection:
        if not connection.execute(select(AlertRow.id).where(*lost).limit(1)).first():
            return 0
    with database.writing() as connection:
        values = {"state": AlertState.DEAD, "error": "the configuration names no such channel any more"}
        return connection.execute(update(AlertRow).where(*lost).values(values)).rowcount


def mark_told(database: Database, alert: Alert, owner: str, answer: str) -> None:
    """Note that the channel took the alert, and what it answered."""
    with database.writing() as connection:
        row = connection.execute(select(AlertRow).where(AlertRow.id == alert.id)).one()
        acknowledged = row.acknowledged_at is not None
        values = {
            "state": AlertState.ACKNOWLEDGED if acknowledged else AlertState.SENT,
            "answer": answer[:500], "error": None, "sent_at": time.time(),
        }  # fmt: skip
        _finish(connection, alert, owner, values)


def mark_untold(database: Database, alert: Alert, owner: str, error: str, rules: DeliveryRules) -> AlertState:
    """Note a failure that may pass, and when to try again; DEAD after ``give_up_days``."""
    now = time.time()
    dead = now - alert.created_at > rules.give_up_days * _SECONDS_A_DAY
    state = AlertState.DEAD if dead else AlertState.PENDING
    with database.writing() as connection:
        values = {"state": state, "error": error[:500], "next_attempt_at": now + rules.pause_s(alert.attempts)}
        _finish(connection, alert, owner, values)
    return state


def mark_alert_refused(database: Database, alert: Alert, owner: str, error: str, rules: DeliveryRules) -> AlertState:
    """Note a refusal that another try will hardly change; DEAD after ``refused_tries``."""
    with database.writing() as connection:
        refusals = connection.execute(select(AlertRow.refusals).where(AlertRow.id == alert.id)).scalar_one() + 1
        state = AlertState.DEAD if refusals >= rules.refused_tries else AlertState.PENDING
        pause_s = rules.pause_s(refusals)
        values = {"state": state, "refusals": refusals, "error": error[:500], "next_attempt_at": time.time() + pause_s}
        _finish(connection, alert, owner, values)
    return state


def _finish(connection: Connection, alert: Alert, owner: str, values: dict[str, Any]) -> None:
    """Give the row back, where it is still ours; once it failed, it stays void where the channel is told otherwise."""
    mine = select(AlertRow).where(AlertRow.id == alert.id, AlertRow.lease_owner == owner)
    row = connection.execute(mine).first()
    if row is None:
        return
    newer = select(AlertRow.id).where(
        AlertRow.study_id == row.study_id, AlertRow.channel == row.channel, AlertRow.id > row.id,
        or_(AlertRow.revision != row.revision, AlertRow.kind != row.kind),
    )  # fmt: skip
    failed = values["state"] in (AlertState.PENDING, AlertState.DEAD)
    if failed and connection.execute(newer.limit(1)).first():
        values = values | {"state": AlertState.SUPERSEDED}
    values = values | {"lease_owner": None, "lease_expires_at": None}
    connection.execute(update(AlertRow).where(AlertRow.id == alert.id).values(values))


def send_again(database: Database, what: str | None) -> int:
    """Put alerts that are DEAD back into the outbox, with their identifiers; return how many.

    Args:
        what: identifier of one; None: all.
    """
    now = time.time()
    dead = update(AlertRow).where(AlertRow.state == AlertState.DEAD)
    if what is not None:
        dead = dead.where(AlertRow.identifier == what.upper())
    fresh = {"state": AlertState.PENDING, "attempts": 0, "refusals": 0, "next_attempt_at": now, "created_at": now,
             "error": None}  # fmt: skip
    with database.writing() as connection:
        return connection.execute(dead.values(fresh)).rowcount


def note_unanswered(database: Database) -> int:
    """Mark what nobody acknowledged although its time is over and no further step is to come; return how many."""
    late = (text(AWAITED), AlertRow.sent_at + AlertRow.answer_within_s < time.time())
    later = AlertRow.__table__.alias("later")
    waits = (
        select(later.c.id)
        .where(later.c.study_id == AlertRow.study_id, later.c.revision == AlertRow.revision)
        .where(later.c.step > AlertRow.step)
        .where(later.c.state.in_((*_OPEN, AlertState.WAITING)))
        .exists()
    )
    with database.reading() as connection:
        ids = list(connection.execute(select(AlertRow.id).where(*late, ~waits)).scalars())
    if not ids:
        return 0
    with database.writing() as connection:
        mine = update(AlertRow).where(AlertRow.id.in_(ids), AlertRow.state == AlertState.SENT)
        return connection.execute(mine.values(state=AlertState.UNANSWERED)).rowcount


def source_path(files: StoredFiles, alert: Alert) -> Path | None:
    """Say where the report of the study is, or an image before there is one; None where it was deleted.

    Raises:
        StorageUnavailable: it cannot be fetched now.
    """
    path = None if alert.source_file is None else files.path(alert.source_file)
    return path if path is not None and path.is_file() else None


def source_at_hand(files: StoredFiles, alert: Alert) -> Path | None:
    """As `source_path`, for who can do without: None, too, where it cannot be fetched now."""
    try:
        return source_path(files, alert)
    except StorageUnavailable:
        return None
