"""What of the node itself needs a person: found, told once, and told once more when it has ended."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, delete, func, insert, select

from ich_node.database import (
    AlertRow,
    ConditionRow,
    Database,
    DeliveryRow,
    DestinationRow,
    InstanceRow,
    SelfTestRow,
    SeriesRow,
)
from ich_node.database.of_patients import series_of_patients
from ich_node.job_queue.alert_entries import new_alert_identifier
from ich_node.job_queue.drift import find_drift
from ich_node.job_queue.retention import find_what_stays
from ich_node.records import (
    OPEN_SERIES,
    AlertChannel,
    AlertKind,
    AlertState,
    DeliveryState,
    InstanceState,
    RetentionRules,
    SeriesState,
)

_OF_TODAY = (
    SeriesRow.state.in_(OPEN_SERIES), SeriesRow.modality == "CT", SeriesRow.old.is_(False), series_of_patients()
)  # fmt: skip
"""Old studies may wait: they go behind everything else."""
_UNDELIVERED = (DeliveryState.PENDING, DeliveryState.SENDING)
_THERE = (DeliveryState.DELIVERED, DeliveryState.COMMITTED)


@dataclass(frozen=True, slots=True)
class WatchRules:
    """How long is too long."""

    no_result_s: float
    destination_down_s: float
    queue_wait_s: float
    retention: RetentionRules | None = None
    self_test_silence_s: float | None = None
    """After so long without a self-test that has ended; None where none is to be."""
    watching_since: float = 0.0
    """Nothing is missed of the time before (seconds since 1970): the node may have been stopped."""
    drift: bool = True
    """Somebody looks for it."""


def find_conditions(database: Database, rules: WatchRules) -> dict[str, str]:
    """Say what needs a person now, by name; no text names a patient or a study."""
    now = time.time()
    with database.reading() as connection:
        return dict(
            (*_silence(connection, now - rules.no_result_s), *_backlog(connection, now - rules.queue_wait_s),
             *_failures(connection), *_destinations(connection, now - rules.destination_down_s),
             *_channels(connection, now - rules.destination_down_s), *_self_test(connection, rules, now),
             *(find_drift(connection) if rules.drift else ()),
             *(() if rules.retention is None else find_what_stays(connection, rules.retention).items()))
        )  # fmt: skip


def _silence(connection: Connection, before: float) -> Iterator[tuple[str, str]]:
    late = select(func.count()).where(*_OF_TODAY, SeriesRow.last_received_at < before)
    if count := connection.execute(late).scalar_one():
        yield "no result", f"{count} CT series without a result in time: look whether the worker runs and has its model"


def _backlog(connection: Connection, before: float) -> Iterator[tuple[str, str]]:
    """Slices that nobody has looked at for long, though nothing failed: more comes than the worker gets through."""
    unread = (
        select(func.count())
        .select_from(InstanceRow)
        .join(SeriesRow, SeriesRow.id == InstanceRow.series_id)
        .where(
            *_OF_TODAY,
            InstanceRow.current,
            InstanceRow.state == InstanceState.RECEIVED,
            InstanceRow.received_at < before,
        )
    )
    unscored = select(func.coalesce(func.sum(SeriesRow.planes_waiting), 0)).where(
        *_OF_TODAY, SeriesRow.last_received_at < before
    )
    if count := connection.execute(unread).scalar_one() + connection.execute(unscored).scalar_one():
        yield "backlog", f"the queue grows: {count} slices wait for the worker for longer than they may"


def _failures(connection: Connection) -> Iterator[tuple[str, str]]:
    for state, todo in (
        (SeriesState.FAILED, "ich-node requeue --failed"),
        (SeriesState.QUARANTINED, "look at them: ich-node status"),
    ):
        if count := connection.execute(
            select(func.count()).where(SeriesRow.state == state, series_of_patients())
        ).scalar_one():
            yield f"series {state}", f"{count} series {state}: {todo}"
    dead = select(func.count()).where(DeliveryRow.state == DeliveryState.DEAD)
    if count := connection.execute(dead).scalar_one():
        yield "dead deliveries", f"{count} deliveries DEAD: ich-node resend --dead"
    dead = select(func.count()).where(AlertRow.state == AlertState.DEAD)
    if count := connection.execute(dead).scalar_one():
        yield "dead alerts", f"{count} alerts DEAD, nobody was told through their channel: ich-node status"


def _destinations(connection: Connection, before: float) -> Iterator[tuple[str, str]]:
    waiting = select(DeliveryRow.destination, func.count().label("objects")).where(
        DeliveryRow.state.in_(_UNDELIVERED), DeliveryRow.created_at < before
    )
    for row in connection.execute(waiting.group_by(DeliveryRow.destination)).all():
        if not _takes_something(connection, row.destination, before):
            name = f"destination {row.destination}"
            yield name, f"{name} takes nothing: {row.objects} objects wait"
    paused = select(DestinationRow.name).where(DestinationRow.paused_at < before)
    for name in connection.execute(paused).scalars():
        yield f"destination {name}", f"destination {name} refuses our association; its objects wait"


def _takes_something(connection: Connection, destination: str, since: float) -> bool:
    """Look at the newest object that was delivered there: looked for from the end, of a table that only grows."""
    delivered = select(DeliveryRow.finished_at).where(
        DeliveryRow.destination == destination, DeliveryRow.state.in_(_THERE)
    )
    last = connection.execute(delivered.order_by(DeliveryRow.id.desc()).limit(1)).scalar()
    return last is not None and last >= since


def _channels(connection: Connection, before: float) -> Iterator[tuple[str, str]]:
    waiting = select(AlertRow.channel, func.count().label("alerts")).where(
        AlertRow.state.in_((AlertState.PENDING, AlertState.SENDING)), AlertRow.created_at < before
    )
    for row in connection.execute(waiting.group_by(AlertRow.channel)).all():
        yield f"channel {row.channel}", f"alert channel {row.channel} takes nothing: {row.alerts} alerts wait"


def _self_test(connection: Connection, rules: WatchRules, now: float) -> Iterator[tuple[str, str]]:
    """The node's own test: the last one failed, or none has ended for long."""
    if rules.self_test_silence_s is None:
        return
    ended = select(SelfTestRow).where(SelfTestRow.finished_at.is_not(None), SelfTestRow.passed.is_not(None))
    last = connection.execute(ended.order_by(SelfTestRow.id.desc()).limit(1)).first()
    if last is not None and not last.passed:
        yield "self-test", f"the self-test failed: {last.fault}; see docs/operation.md, The self-test"
    elif now - max(rules.watching_since, 0.0 if last is None else last.finished_at) > rules.self_test_silence_s:
        yield "self-test silence", "no self-test has ended for long: nobody knows whether studies get their results"


def note_conditions(database: Database, found: Mapping[str, str], channels: Sequence[AlertChannel]) -> list[str]:
    """Tell of conditions that are new and of those that have ended; return the names of both.

    One that lasts is told once, whatever its numbers become.
    """
    with database.reading() as connection:
        if {row.name for row in connection.execute(select(ConditionRow)).all()} == set(found):
            return []
    now = time.time()
    with database.writing() as connection:
        known = {row.name: row.text for row in connection.execute(select(ConditionRow)).all()}
        new = [name for name in found if name not in known]
        ended = [name for name in known if name not in found]
        for name in new:
            connection.execute(insert(ConditionRow).values(name=name, text=found[name], since=now))
            _tell(connection, AlertKind.CONDITION, found[name], channels, now)
        for name in ended:
            connection.execute(delete(ConditionRow).where(ConditionRow.name == name))
            _tell(connection, AlertKind.RESOLVED, known[name], channels, now)
    return [*new, *ended]


def _tell(connection: Connection, kind: AlertKind, text: str, channels: Sequence[AlertChannel], now: float) -> None:
    for step, channel in enumerate(channels):
        values: dict[str, Any] = {
            "identifier": new_alert_identifier(), "study_id": None, "revision": 0, "kind": kind, "text": text,
            "outcome": kind, "told_before": "", "channel": channel.name, "channel_kind": channel.kind, "step": step,
            "state": AlertState.PENDING, "next_attempt_at": now, "created_at": now,
        }  # fmt: skip
        connection.execute(insert(AlertRow).values(values))
