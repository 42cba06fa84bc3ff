"""Which studies say something new, and who is told of it: decided once per revision, in one transaction."""

from __future__ import annotations

import base64
import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import ColumnElement, Connection, insert, select, text, update

from ich_node.database import AlertRow, Database, SeriesRow, StudyRow
from ich_node.database.of_patients import studies_of_patients
from ich_node.database.tables import EARLY, TO_ALERT
from ich_node.job_queue.alert_early import studies_left_without_result
from ich_node.patient_history import history_of
from ich_node.records import AlertChannel, AlertKind, AlertState, AlertStep, Presence, StudyAnswer, Triage
from ich_node.records.alerts import NOT_ANALYSED, PRELIMINARY, WITHDRAWN

_AT_ONCE = 100
"""Studies in one transaction: others wait for the write lock."""
_OUTRANKED = (AlertState.PENDING, AlertState.WAITING, AlertState.HELD, AlertState.DEAD)
_TAKES_BACK = (AlertKind.CORRECTION, AlertKind.WITHDRAWN)
_TOLD = (AlertState.SENT, AlertState.ACKNOWLEDGED, AlertState.UNANSWERED, AlertState.SENDING)
_WITHOUT_RESULT = (WITHDRAWN, NOT_ANALYSED)
_NEWER = "the study has a newer revision"


@dataclass(frozen=True, slots=True)
class AlertPlan:
    """Who is told of a study's answer."""

    steps: tuple[AlertStep, ...] = ()
    held: bool = False
    """The node or the sender is not live: entered, never sent."""


def new_alert_identifier() -> str:
    """Make the name of an alert: 20 characters (MSH-10 holds that many), in which nobody mistakes one for another."""
    return base64.b32encode(secrets.token_bytes(13)).decode()[:20]


def enter_alerts(database: Database, plan: Callable[[StudyAnswer], AlertPlan]) -> list[StudyAnswer]:
    """Decide for every study with a new revision who is told, and enter it in the outbox.

    Who was told something else before is told of the change; the same answer again is told to nobody.

    Returns:
        The answers of which somebody is told.
    """
    with database.reading() as connection:
        if not (_studies(connection) or studies_left_without_result(connection)):
            return []
    told = []
    with database.writing() as connection:
        for study in _studies(connection):
            answer = _answer(connection, study) if study.revision else _early_answer(connection, study)
            if _enter(connection, study, answer, plan(answer)):
                told.append(answer)
        for study in studies_left_without_result(connection):
            answer = replace(_early_answer(connection, study), outcome=WITHDRAWN)
            if _enter(connection, study, answer, plan(answer)):
                told.append(answer)
    return told


def _studies(connection: Connection) -> list[Any]:
    """Read the studies that say something new, the old ones last."""
    of_patients = studies_of_patients()
    newer = connection.execute(select(StudyRow).where(text(TO_ALERT), of_patients).limit(_AT_ONCE)).all()
    early = connection.execute(select(StudyRow).where(text(EARLY), of_patients).limit(_AT_ONCE)).all()
    return sorted((*newer, *early), key=lambda study: (study.old, study.id))


def _early_answer(connection: Connection, study: Any) -> StudyAnswer:
    series = connection.execute(select(SeriesRow).where(SeriesRow.id == study.early_series_id)).one()
    return _answer_of(connection, study, series, Triage.POSITIVE, study.early_finding)


def _answer(connection: Connection, study: Any) -> StudyAnswer:
    rests_on = SeriesRow.id == study.rests_on_series_id
    series = connection.execute(select(SeriesRow).where(rests_on)).first()
    if series is None:  # a study without a result rests on none
        series = connection.execute(
            select(SeriesRow).where(SeriesRow.study_id == study.id).order_by(SeriesRow.id).limit(1)
        ).one()
    outcome = WITHDRAWN if study.withdrawn else study.triage or NOT_ANALYSED
    return _answer_of(connection, study, series, outcome, (series.finding or {}) if study.triage else {})


def _answer_of(connection: Connection, study: Any, series: Any, outcome: str, finding: dict[str, Any]) -> StudyAnswer:
    return StudyAnswer(
        study_id=study.id,
        revision=study.revision,
        outcome=outcome,
        probabilities=finding.get("probabilities", {}),
        present=tuple(name for name, says in finding.get("presence", {}).items() if says == Presence.PRESENT),
        station_name=series.station_name,
        calling_ae_title=series.calling_ae_title,
        remote_address=series.remote_address,
        acquired_at=series.acquired_at,
        test_model=finding.get("test_model", False),
        known_bleed=history_of(connection, study).known_bleed,
    )


def _enter(connection: Connection, study: Any, answer: StudyAnswer, plan: AlertPlan) -> bool:
    """Enter who is told. Of a study without a report it is the early finding, or that nothing followed it."""
    of_study = AlertRow.study_id == study.id
    decided = {"alerted_revision": study.revision, "early_decided": True}
    if answer.outcome == study.told:  # what is still to be told of it holds
        _note(connection, study.id, decided)
        return False
    before = _channels_told(connection, of_study)
    seen = connection.execute(select(AlertRow.id).where(of_study, AlertRow.acknowledged_at.is_not(None))).first()
    _supersede(connection, of_study)
    kind = _kind(study, answer, told=bool(before))
    steps = list(plan.steps)
    if kind is AlertKind.FINAL and before and seen:  # it only confirms what somebody has seen
        steps = [AlertStep(step.channel) for step in steps if not step.after_s]
    at_once = {step.channel.name for step in steps if not step.after_s}
    steps += [AlertStep(channel) for channel in before if channel.name not in at_once]
    for step, number in _numbered(steps):
        values = _telling(study, kind, heard=step.channel in before) | _of_step(step, number, held=plan.held)
        connection.execute(insert(AlertRow).values(_of_answer(answer) | values))
    told = PRELIMINARY if kind is AlertKind.PRELIMINARY else answer.outcome
    may_have_heard = bool(steps) and (bool(before) or not plan.held)
    _note(connection, study.id, decided | {"told": told if may_have_heard else None})
    return bool(steps)


def _kind(study: Any, answer: StudyAnswer, *, told: bool) -> AlertKind:
    if not study.revision and answer.outcome not in _WITHOUT_RESULT:
        return AlertKind.PRELIMINARY
    if not told or (study.told == PRELIMINARY and answer.outcome == Triage.POSITIVE):
        return AlertKind.FINAL
    return AlertKind.WITHDRAWN if answer.outcome in _WITHOUT_RESULT else AlertKind.CORRECTION


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


def _numbered(steps: Sequence[AlertStep]) -> Iterator[tuple[AlertStep, int]]:
    """Give what is told at once as step 0, each channel once, and what comes later as 1, 2 ... in its order."""
    at_once = {step.channel.name: step for step in reversed(steps) if not step.after_s}
    later = sorted((step for step in steps if step.after_s), key=lambda step: step.after_s)
    yield from ((step, 0) for step in steps if at_once.get(step.channel.name) is step)
    yield from ((step, number) for number, step in enumerate(later, 1))


def _telling(study: Any, kind: AlertKind, *, heard: bool) -> dict[str, Any]:
    """Say what an alert is to one channel: who never heard of the study is told, not corrected."""
    if kind not in _TAKES_BACK:
        return {"kind": kind, "told_before": ""}
    return {"kind": kind, "told_before": study.told or ""} if heard else {"kind": AlertKind.FINAL, "told_before": ""}


def _of_answer(answer: StudyAnswer) -> dict[str, Any]:
    return {"identifier": new_alert_identifier(), "study_id": answer.study_id, "revision": answer.revision,
            "outcome": answer.outcome}  # fmt: skip


def _of_step(step: AlertStep, number: int, *, held: bool) -> dict[str, Any]:
    now = time.time()
    return {
        "channel": step.channel.name, "channel_kind": step.channel.kind, "step": number,
        "answer_within_s": step.answer_within_s,
        "state": AlertState.HELD if held else AlertState.WAITING if step.after_s else AlertState.PENDING,
        "next_attempt_at": now + step.after_s, "created_at": now,
    }  # fmt: skip


def _note(connection: Connection, study_id: int, values: dict[str, Any]) -> None:
    connection.execute(update(StudyRow).where(StudyRow.id == study_id).values(values))
