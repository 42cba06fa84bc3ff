"""Which studies say something new, and who is told of it: decided once per revision, in one transaction."""

from __future__ import annotations

import base64
import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Connection, insert, select, update

from ich_node.database import AlertRow, Database, SeriesRow, StudyRow
from ich_node.records import AlertChannel, AlertKind, AlertState, AlertStep, Presence, StudyAnswer
from ich_node.records.alerts import NOT_ANALYSED, WITHDRAWN

_OUTRANKED = (AlertState.PENDING, AlertState.WAITING, AlertState.HELD)
_TOLD = (AlertState.SENT, AlertState.ACKNOWLEDGED, AlertState.UNANSWERED, AlertState.SENDING)
_WITHOUT_RESULT = (WITHDRAWN, NOT_ANALYSED)
_NEWER = "the study has a newer revision"


@dataclass(frozen=True, slots=True)
class AlertPlan:
    """Who is told of a study's answer."""

    steps: tuple[AlertStep, ...] = ()
    silent: str = ""
    """Why nobody is told at all, not even who was told before; empty where rules decide."""
    held: bool = False
    """Shadow mode: entered, never sent."""


def new_alert_identifier() -> str:
    """Make the name of an alert: 20 characters (MSH-10 holds that many), in which nobody mistakes one for another."""
    return base64.b32encode(secrets.token_bytes(13)).decode()[:20]


def enter_alerts(database: Database, plan: Callable[[StudyAnswer], AlertPlan]) -> list[StudyAnswer]:
    """Decide for every study with a new revision who is told, and enter it in the outbox.

    Who was told something else before is told of the change; the same answer again is told to nobody.

    Returns:
        The answers of which somebody is told.
    """
    newer = StudyRow.revision > StudyRow.alerted_revision
    with database.reading() as connection:
        if not connection.execute(select(StudyRow.id).where(newer).limit(1)).first():
            return []
    told = []
    with database.writing() as connection:
        for study in connection.execute(select(StudyRow).where(newer).order_by(StudyRow.old, StudyRow.id)).all():
            answer = _answer(connection, study)
            if _enter(connection, study, answer, plan(answer)):
                told.append(answer)
    return told


def _answer(connection: Connection, study: Any) -> StudyAnswer:
    rests_on = SeriesRow.id == study.rests_on_series_id
    series = connection.execute(select(SeriesRow).where(rests_on)).first()
    if series is None:  # a study without a result rests on none
        series = connection.execute(
            select(SeriesRow).where(SeriesRow.study_id == study.id).order_by(SeriesRow.id).limit(1)
        ).one()
    finding = (series.finding or {}) if study.triage else {}
    return StudyAnswer(
        study_id=study.id,
        revision=study.revision,
        outcome=WITHDRAWN if study.withdrawn else study.triage or NOT_ANALYSED,
        probabilities=finding.get("probabilities", {}),
        present=tuple(name for name, says in finding.get("presence", {}).items() if says == Presence.PRESENT),
        station_name=series.station_name,
        calling_ae_title=series.calling_ae_title,
        remote_address=series.remote_address,
        acquired_at=series.acquired_at,
        test_model=finding.get("test_model", False),
    )


def _enter(connection: Connection, study: Any, answer: StudyAnswer, plan: AlertPlan) -> bool:
    of_study = AlertRow.study_id == study.id
    decided = {"alerted_revision": study.revision}
    if answer.outcome == study.told or plan.silent:  # what is still to be told of it holds
        _note(connection, study.id, decided)
        return False
    before = _channels_told(connection, of_study)
    _supersede(connection, of_study)
    steps = list(plan.steps)
    if before:
        told_now = {step.channel.name for step in steps}
        steps += [AlertStep(channel) for channel in before if channel.name not in told_now]
    kind = AlertKind.FINAL
    if before:
        kind = AlertKind.WITHDRAWN if answer.outcome in _WITHOUT_RESULT else AlertKind.CORRECTION
    told_before = (study.told or "") if before else ""
    _add(connection, answer, steps, (kind, told_before), plan.held)
    _note(connection, study.id, decided | {"told": answer.outcome if steps else None})
    return bool(steps)


def _channels_told(connection: Connection, of_study: ColumnElement[bool]) -> list[AlertChannel]:
    """Who may have heard of the study: it was tried, whether or not an answer came."""
    heard = AlertRow.state.in_(_TOLD) | (AlertRow.attempts > 0)
    rows = connection.execute(
        select(AlertRow.channel, AlertRow.channel_kind).where(of_study, heard).order_by(AlertRow.id)
    )
    return list(dict.fromkeys(AlertChannel(row.channel, row.channel_kind) for row in rows))


def _supersede(connection: Connection, of_study: ColumnElement[bool]) -> None:
    """What was not sent yet is not said any more; what waits for an acknowledgement waits no longer."""
    unsent = update(AlertRow).where(of_study, AlertRow.state.in_(_OUTRANKED))
    connection.execute(unsent.values(state=AlertState.SUPERSEDED, error=_NEWER))
    connection.execute(update(AlertRow).where(of_study).values(answer_within_s=None))


def _add(
    connection: Connection,
    answer: StudyAnswer,
    steps: Sequence[AlertStep],
    what: tuple[AlertKind, str],
    held: bool,
) -> None:
    now = time.time()
    kind, told_before = what
    seen: set[str] = set()
    for number, step in enumerate(sorted(steps, key=lambda one: one.after_s)):
        later = step.after_s > 0
        if step.channel.name in seen and not later:
            continue
        seen.add(step.channel.name)
        values = {
            "identifier": new_alert_identifier(), "study_id": answer.study_id, "revision": answer.revision,
            "kind": kind, "outcome": answer.outcome, "told_before": told_before, "channel": step.channel.name,
            "channel_kind": step.channel.kind, "step": number, "answer_within_s": step.answer_within_s,
            "state": AlertState.HELD if held else AlertState.WAITING if later else AlertState.PENDING,
            "next_attempt_at": now + step.after_s, "created_at": now,
        }  # fmt: skip
        connection.execute(insert(AlertRow).values(values))


def _note(connection: Connection, study_id: int, values: dict[str, Any]) -> None:
    connection.execute(update(StudyRow).where(StudyRow.id == study_id).values(values))
