"""The loop of alerts: decide who is told of what is new, tell them, and go on to the next until somebody answers."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from datetime import datetime
from typing import Any, Final

from ich_node.alert import AlertMessage, message_of, message_of_node
from ich_node.alert_channels import Channel, channel_places
from ich_node.alert_links import open_links
from ich_node.alert_rules import channels_of, plan_alerts
from ich_node.audit import AuditTrail, open_trail
from ich_node.audit.subject import read_subject
from ich_node.config import Config
from ich_node.database import Database, Looks
from ich_node.errors import AlertRefused, ChannelUnavailable, ObjectStoreAway, StorageFailed, StorageUnavailable
from ich_node.failpoint import reach
from ich_node.job_queue import DeliveryRules, new_owner
from ich_node.job_queue.alert_entries import AlertPlan, enter_alerts
from ich_node.job_queue.alert_outbox import (
    bury_unknown_channels,
    claim_alert,
    mark_alert_refused,
    mark_told,
    mark_untold,
    note_unanswered,
    source_at_hand,
    source_path,
)
from ich_node.job_queue.conditions import WatchRules, find_conditions, note_conditions
from ich_node.log import EventLog
from ich_node.records import Alert, AlertState, StudyAnswer
from ich_node.stored_files import stored_files

_POLL_S: Final = 0.1
_LOOK_S: Final = 0.5
"""So often it looks where nobody has written: what is due by the clock alone."""
_WATCH_S: Final = 5.0
_SPARE_LEASE_S: Final = 30.0
_GONE: Final = "the study's report or image is gone"

log = EventLog("alert")


class Alerter:
    """Everything between a study's answer and the people who must know."""

    def __init__(
        self,
        config: Config,
        database: Database,
        channels: Mapping[str, Channel],
        trail: AuditTrail | None = None,
        is_our_turn: Callable[[], bool] = lambda: True,
    ) -> None:
        """Open links and know the rules.

        Args:
            is_our_turn: says whether this host watches the node; alerts of studies are told by each.
        """
        self._is_our_turn = is_our_turn
        self._trail = trail or open_trail(config, "deliver")
        self._places = {name: f"{host}:{port}" for name, host, port in channel_places(config)}
        self._mails = {one.name for one in config.alert_mail}
        self._config = config
        self._files = stored_files(config)
        self._database = database
        self._channels = channels
        self._links = open_links(config)
        self._owner = new_owner()
        self._most_per_minute = {
            one.name: one.most_per_minute for one in (*config.alert_hl7, *config.alert_webhook, *config.alert_mail)
        }
        known = channels_of(config)
        self._watchers = [known[name] for name in config.watchdog.tell]
        self._tells_of_node = config.node.mode != "shadow"
        self._watch_at = 0.0
        self._began = time.monotonic()
        settings = config.alert
        self._rules = DeliveryRules(
            first_retry_s=settings.first_retry_s,
            longest_retry_s=settings.longest_retry_s,
            give_up_days=settings.give_up_days,
            refused_tries=settings.refused_tries,
        )
        self._lease_s = _SPARE_LEASE_S + settings.connect_timeout_s + settings.response_timeout_s

    def run(self, stop: threading.Event) -> None:
        """Tell until told to stop, through all channels at once: one that hangs holds up no other."""
        telling: dict[str, Future[None]] = {}
        if count := bury_unknown_channels(self._database, self._most_per_minute.keys()):
            log.error("alerts are for channels that there are not any more: DEAD", count=count)
        with (
            closing(Looks(self._database, _LOOK_S)) as looks,
            ThreadPoolExecutor(max(len(self._channels), 1), "alert") as threads,
        ):
            while not stop.is_set():
                try:
                    busy = bool(telling or looks.worth()) and self._step(telling, threads)
                except StorageUnavailable as error:  # what was being told is claimed and told again
                    log.error("nothing can be written now; trying again", error)
                    busy = False
                if not busy:
                    stop.wait(_POLL_S)

    def _step(self, telling: dict[str, Future[None]], threads: ThreadPoolExecutor) -> bool:
        for name in [name for name, future in telling.items() if future.done()]:
            telling.pop(name).result()
        for answer in enter_alerts(self._database, self._plan):
            reach("alert-entered")
            log.info("to be told", study=answer.study_id, revision=answer.revision, outcome=answer.outcome)
        if unanswered := note_unanswered(self._database):
            log.error("alerts stay unanswered: look at ich-node status", count=unanswered)
        self._watch()
        alert = self._claim(telling)
        if alert is not None:
            telling[alert.channel] = threads.submit(self._tell, alert)
        return alert is not None

    def _watch(self) -> None:
        """Look after the node itself, now and then; pages and status show it also where nobody is to be told."""
        if time.monotonic() < self._watch_at:
            return
        self._watch_at = time.monotonic() + _WATCH_S
        if not self._is_our_turn():
            return
        settings = self._config.watchdog
        watching_since = time.time() - (time.monotonic() - self._began)
        silence_s = self._config.self_test.silence_s if self._config.self_test.enabled else None
        rules = WatchRules(
            settings.no_result_s, settings.destination_down_s, settings.queue_wait_s, self._config.retention_rules,
            silence_s, watching_since, drift=self._config.drift.enabled,
        )  # fmt: skip
        found = find_conditions(self._database, rules)
        for name in note_conditions(self._database, found, self._watchers if self._tells_of_node else ()):
            if name in found:
                log.error("the node needs a person", what=found[name])
            else:
                log.info("what needed a person has ended", what=name)

    def _plan(self, answer: StudyAnswer) -> AlertPlan:
        return plan_alerts(self._config, answer, datetime.now().astimezone())

    def _claim(self, telling: Mapping[str, Any]) -> Alert | None:
        if self._config.node.mode == "shadow" or not self._channels:
            return None
        return claim_alert(
            self._database,
            self._owner,
            lease_s=self._lease_s,
            busy=telling.keys(),
            most_per_minute=self._most_per_minute,
            of_studies=self._config.node.mode == "live",
        )

    def _tell(self, alert: Alert) -> None:
        reach("alert-claimed")
        try:
            answer = self._channels[alert.channel].tell(self._message(alert))
        except AlertRefused as error:
            state = mark_alert_refused(self._database, alert, self._owner, str(error), self._rules)
            self._failed(alert, state, str(error))
        except (ChannelUnavailable, ObjectStoreAway) as error:
            state = mark_untold(self._database, alert, self._owner, str(error), self._rules)
            self._failed(alert, state, str(error))
        except (StorageFailed, StorageUnavailable):  # no fault of the alert
            raise
        except Exception as error:  # noqa: BLE001 - a broad catch (docs/architecture.md): a poison alert stops no other
            state = mark_alert_refused(self._database, alert, self._owner, type(error).__name__, self._rules)
            self._failed(alert, state, type(error).__name__)
        else:
            reach("alert-told")
            mark_told(self._database, alert, self._owner, answer)
            reach("alert-noted")
            self._audit(alert)
            log.info("told", **_fields(alert), outcome=alert.outcome, says=answer)

    def _failed(self, alert: Alert, state: AlertState, why: str) -> None:
        self._audit(alert, why)
        _log_failure(alert, state, why)

    def _audit(self, alert: Alert, why_not: str = "") -> None:
        """Record who was told of a patient. Alerts of the node itself are about none."""
        if alert.study_id is None:
            return
        place = self._places.get(alert.channel, alert.channel)
        subject = read_subject(source_at_hand(self._files, alert), alert.study_instance_uid)
        details = {"Alert": alert.identifier, "Channel": alert.channel, "Kind": str(alert.kind)}
        self._trail.alert_told(place, subject, by_mail=alert.channel in self._mails, why_not=why_not, **details)

    def _message(self, alert: Alert) -> AlertMessage:
        if alert.study_id is None:
            return message_of_node(alert)
        path = source_path(self._files, alert)
        if path is None:
            raise AlertRefused(_GONE)
        return message_of(alert, path, "" if self._links is None else self._links.url(alert.identifier))


def _fields(alert: Alert) -> dict[str, Any]:
    return {
        "alert": alert.identifier,
        "channel": alert.channel,
        "study": alert.study_id,
        "revision": alert.revision,
        "kind": alert.kind,
        "attempt": alert.attempts,
    }


def _log_failure(alert: Alert, state: AlertState, why: str) -> None:
    if state is AlertState.DEAD:
        log.error("alert is DEAD: nobody was told through this channel", **_fields(alert), why=why)
    else:
        log.warning("alert failed, will be tried again", **_fields(alert), why=why)
