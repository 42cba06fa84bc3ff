"""The outbox loop: send what was saved, until it has arrived or a person must look. Beside it: alerts, questions."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import replace
from functools import partial
from typing import Any

from ich_node.alert_answerer import taking_answers
from ich_node.alert_channels import make_channels
from ich_node.alerter import Alerter
from ich_node.association import Association, Patience, associate
from ich_node.audit import AuditTrail, Outcome, Peer, Transfers, open_trail
from ich_node.audit.sender import check_server, sending_audit
from ich_node.audit.subject import read_subject
from ich_node.commitment_asker import delivery_rules, start_asking_commitment
from ich_node.config import Config
from ich_node.database import Database, Looks, open_database, prepare_database
from ich_node.deliver import StoreOutcome, Verdict, is_warning, store
from ich_node.errors import (
    ClassNotTaken,
    DestinationRefuses,
    DestinationUnavailable,
    ObjectStoreAway,
    StorageUnavailable,
)
from ich_node.failpoint import reach
from ich_node.housekeeping import start_housekeeping, wake_housekeeping, watch_certificate
from ich_node.job_queue import (
    Turn,
    claim_deliveries,
    free_leases_of_the_dead,
    hurry_deliveries,
    is_still_ours,
    mark_delivered,
    mark_held,
    mark_lost,
    mark_refused,
    mark_unreached,
    new_owner,
    pause_destination,
    renew_deliveries,
)
from ich_node.log import EventLog
from ich_node.pacs_askers import CountAsker, HistoryAsker, PacsAsker
from ich_node.records import REPORT_KIND, Delivery, DeliveryObject, DeliveryState
from ich_node.resting import Resting
from ich_node.role_lock import holding_role
from ich_node.routing import pacs_to_ask, secured
from ich_node.self_test import testing_itself
from ich_node.service import MemoryGivenBack, SystemdNotifier, stop_on_signals
from ich_node.stored_files import stored_files
from ich_node.timekeeping import keep_time

_POLL_S = 0.1
_LONGEST_POLL_S = 2.0
_LOOK_S = 0.5
"""So often it looks where nobody has written: what waits for its next attempt becomes due by the clock alone."""
_NINE_TENTHS = 9.0
_LEASE_S = 60.0
_RENEWED_AT_EACH = 4
"""Of a lease: a deliverer that is gone holds nothing up for longer, however long one object may take."""
_MOST_AT_ONCE = 20
_DESTINATIONS_AT_ONCE = 8
_GONE = "the report's file is gone; ich-node requeue makes a new report"
_DAMAGED = "the report's file is not what was saved; ich-node requeue makes a new report"

_OUTCOMES = {Verdict.DELIVERED: Outcome.SUCCESS, Verdict.TRY_AGAIN: Outcome.MINOR, Verdict.REFUSED: Outcome.SERIOUS}
_CONNECTIONS_KEPT = 4
"""Two look whether somebody wrote, one delivers or alerts, one is for the threads that seldom need any."""

log = EventLog("deliver")


class Deliverer:
    """Everything between the outbox and the destinations."""

    def __init__(
        self,
        config: Config,
        database: Database,
        alive: Callable[[], None] = lambda: None,
        trail: AuditTrail | None = None,
    ) -> None:
        self._transfers = Transfers(trail or open_trail(config, "deliver"), incoming=False)
        self._alive = alive
        self._config = config
        self._files = stored_files(config)
        self._database = database
        self._owner = new_owner()
        self._patience = _patience(config)
        self._rules = delivery_rules(config)
        self._resting = Resting(self._rules)
        self._to_commit = {one.name for one in config.destination if one.commitment}
        self._renew_at = 0.0

    def run(self, stop: threading.Event) -> None:
        """Deliver until told to stop, to several destinations at once: one that hangs holds up no other."""
        sending: dict[str, Future[None]] = {}
        with (
            closing(Looks(self._database, _LOOK_S)) as looks,
            ThreadPoolExecutor(_DESTINATIONS_AT_ONCE, "deliver") as threads,
        ):
            memory = MemoryGivenBack()
            while not stop.is_set():
                self._alive()
                memory.look()
                began = time.monotonic()
                try:
                    busy = bool(sending or looks.worth()) and self._send_what_is_due(sending, threads)
                except StorageUnavailable as error:  # what was being sent is claimed and sent again
                    log.error("nothing can be written now; trying again", error)
                    busy = False
                if not busy:  # looking through many that wait takes its time: never more than a tenth of ours
                    stop.wait(max(_POLL_S, min(_NINE_TENTHS * (time.monotonic() - began), _LONGEST_POLL_S)))

    def _send_what_is_due(self, sending: dict[str, Future[None]], threads: ThreadPoolExecutor) -> bool:
        for name in [name for name, future in sending.items() if future.done()]:
            sending.pop(name).result()
        if sending and time.monotonic() >= self._renew_at:
            renew_deliveries(self._database, self._owner, lease_s=_LEASE_S)
            self._renew_at = time.monotonic() + _LEASE_S / _RENEWED_AT_EACH
        deliveries = self._claim(sending) if len(sending) < _DESTINATIONS_AT_ONCE else []
        if deliveries:
            sending[deliveries[0].destination.name] = threads.submit(self._deliver, deliveries)
        return bool(deliveries)

    def step(self) -> bool:
        """Deliver what is due at one destination, in one association; False where nothing is due."""
        deliveries = self._claim(())
        if deliveries:
            self._deliver(deliveries)
        return bool(deliveries)

    def _claim(self, busy: Collection[str]) -> list[Delivery]:
        if self._config.node.mode == "shadow":
            return []
        state, alone = self._config.state_directory, {*busy, *self._resting.names()}
        return claim_deliveries(self._database, self._owner, state, lease_s=_LEASE_S, limit=_MOST_AT_ONCE, busy=alone)

    def _deliver(self, deliveries: Sequence[Delivery]) -> None:
        reach("delivery-claimed")
        left = self._with_files(deliveries)
        if not left:
            return
        destination = secured(self._config, left[0].destination)
        classes = list(dict.fromkeys(one.sop_class_uid for delivery in left for one in delivery.objects))
        reached = False
        try:
            with associate(destination, self._config.node.ae_title, classes, self._patience) as association:
                reached = True
                try:
                    while left:
                        if is_still_ours(self._database, left[0], self._owner):
                            self._send(association, left[0])
                        left.pop(0)
                finally:
                    self._transfers.end(association)
        except DestinationRefuses as error:
            self._refused(left, error)
        except DestinationUnavailable as error:
            if not reached:
                self._resting.begin(destination.name)
            self._put_off(left, str(error))

    def _put_off(self, deliveries: Sequence[Delivery], why: str) -> None:
        states = mark_unreached(self._database, deliveries, self._owner, why, self._rules)
        for delivery, state in zip(deliveries, states, strict=True):
            _log_failure(delivery, state, why)

    def _send(self, association: Association, delivery: Delivery) -> None:
        subject = read_subject(delivery.objects[0].path)
        peer = Peer(delivery.destination.ae_title, delivery.destination.host)
        self._transfers.begin(association, peer, subject)
        reach("delivery-before-send")
        try:
            outcome = store(association, delivery.objects, urgent=delivery.urgent)
        except DestinationUnavailable as error:
            sop_class, why = delivery.objects[0].sop_class_uid, str(error)
            self._transfers.count(association, peer, subject, sop_class, held=True, outcome=Outcome.MINOR, why=why)
            raise
        except ClassNotTaken as error:
            if delivery.kind == REPORT_KIND:
                raise
            self._hold(delivery, str(error))
        else:
            reach("delivery-stored")
            says = _OUTCOMES[outcome.verdict]
            why = "" if says is Outcome.SUCCESS else f"status 0x{outcome.dimse_status:04X}"
            self._transfers.count(association, peer, subject, outcome.sop_class_uid, held=True, outcome=says, why=why)
            self._note(delivery, outcome)
            reach("delivery-noted")

    def _refused(self, left: Sequence[Delivery], error: DestinationRefuses) -> None:
        """Pause the destination, unless it only does not take what is beside the report."""
        if isinstance(error, ClassNotTaken) and all(one.kind != REPORT_KIND for one in left):
            for delivery in left:
                self._hold(delivery, str(error))
        else:
            self._pause(left, str(error))

    def _with_files(self, deliveries: Sequence[Delivery]) -> list[Delivery]:
        """Fetch what is to be sent. Where that cannot be done now, all of it waits: no fault of the destination."""
        try:
            return [found for one in deliveries if (found := self._with_its_files(one)) is not None]
        except ObjectStoreAway as error:
            self._put_off(deliveries, str(error))
            return []

    def _with_its_files(self, delivery: Delivery) -> Delivery | None:
        """Bury a delivery whose report was deleted or is damaged: another try would not bring it back.

        One that cannot be read now is put off by itself: it holds up no other.
        """
        names = [str(one.path.relative_to(self._config.state_directory)) for one in delivery.objects]
        objects = [
            replace(one, path=path) for one, path in zip(delivery.objects, self._files.paths(names), strict=True)
        ]
        try:
            why = _fault_of(objects)
        except OSError as error:
            self._put_off([delivery], f"a report cannot be read: {error.strerror}")
            return None
        if not why:
            return replace(delivery, objects=tuple(objects))
        mark_lost(self._database, delivery, self._owner, why)
        _log_failure(delivery, DeliveryState.DEAD, why)
        return None

    def _note(self, delivery: Delivery, outcome: StoreOutcome) -> None:
        if self._resting.end(delivery.destination.name):
            hurry_deliveries(self._database, delivery.destination.name)
        status = outcome.dimse_status
        text = f"status 0x{status:04X}"
        if outcome.verdict is Verdict.DELIVERED:
            warning = f"warning 0x{status:04X}" if is_warning(status) else ""
            uid, wanted = outcome.sop_instance_uid, delivery.destination.name in self._to_commit
            mark_delivered(self._database, delivery, self._owner, uid, status, warning, commitment=wanted)
            log.info("delivered", **_fields(delivery), status=f"0x{status:04X}")
        elif outcome.verdict is Verdict.TRY_AGAIN:
            (state,) = mark_unreached(self._database, [delivery], self._owner, text, self._rules, status)
            _log_failure(delivery, state, text)
        else:
            state = mark_refused(self._database, delivery, self._owner, text, status, self._rules)
            _log_failure(delivery, state, text)

    def _hold(self, delivery: Delivery, why: str) -> None:
        """What is beside the report is a convenience: where it is not taken, the report alone does."""
        mark_held(self._database, delivery, self._owner, why)
        log.warning("held: the destination does not take it", **_fields(delivery), kind=delivery.kind, why=why)

    def _pause(self, deliveries: Sequence[Delivery], error: str) -> None:
        newly = pause_destination(self._database, deliveries, self._owner, error, self._rules)
        name = deliveries[0].destination.name
        if newly:
            log.error("destination paused; it is tried every minute", destination=name, why=error, held=len(deliveries))
        else:
            log.info("destination still refuses", destination=name, why=error)


def run_deliverer(config: Config) -> None:
    """Deliver and keep house until a signal says stop.

    Raises:
        StartError: the node cannot run here.
        ConfigError: secrets, certificates or templates of alerts cannot be used.
    """
    alerting = make_channels(config)
    check_server(config)
    database = open_database(config.database_url, config.database.busy_timeout_s, _CONNECTIONS_KEPT)
    notifier = SystemdNotifier()
    with stop_on_signals() as stop, holding_role(config.host_directory, "deliver"):
        prepare_database(database, config.state_directory, host_directory=config.host_directory)
        free_leases_of_the_dead(database)
        watch_certificate(config, database)
        trail = open_trail(config, "deliver")
        keeping, testing = Turn(database, "housekeeping"), Turn(database, "self-test")
        turns = (keeping, testing) if "receive" in config.node.roles else (keeping,)
        with sending_audit(config, stop), start_housekeeping(config, database, keeping.is_mine) as scheduler:
            keep_time(config, database, partial(wake_housekeeping, scheduler))  # before anything is decided by a time
            with (
                taking_answers(config, database, stop, trail),
                testing_itself(config, database, stop, trail, testing.is_mine),
                ThreadPoolExecutor(1, "alerts") as beside,
            ):
                start_asking(config, database, stop, trail)
                start_asking_commitment(config, database, stop)
                alerts = beside.submit(Alerter(config, database, alerting, trail, keeping.is_mine).run, stop)
                alerts.add_done_callback(lambda _: stop.set())  # alerts that end by themselves end the process
                trail.started(config)
                log.info("deliverer ready", destinations=[one.name for one in config.destination])
                notifier.ready(f"delivering to {len(config.destination)} destinations")
                try:
                    Deliverer(config, database, partial(_live, notifier, turns), trail).run(stop)
                finally:
                    stop.set()  # or the end would wait for the alerts, and they for it
                notifier.stopping()
                alerts.result()
                trail.stopped()
        with suppress(StorageUnavailable):  # else they run out
            for turn in turns:
                turn.give_back()
    database.close()


def _live(notifier: SystemdNotifier, turns: Sequence[Turn]) -> None:
    """Say that the deliverer lives, and keep its turns, however long what is done in them takes."""
    notifier.alive()
    with suppress(StorageUnavailable):
        for turn in turns:
            turn.is_mine()


def start_asking(config: Config, database: Database, stop: threading.Event, trail: AuditTrail | None = None) -> None:
    """Ask the PACS, where one is configured, in a thread of its own: if it hangs it holds up nothing else."""
    pacs = pacs_to_ask(config)
    if pacs is None:
        return
    askers: list[PacsAsker] = [CountAsker(config, database, pacs, trail)]
    askers += [HistoryAsker(config, database, pacs, trail)] if config.history.query else []
    for asker in askers:
        threading.Thread(target=asker.run, args=(stop,), name=asker.thread_name, daemon=True).start()


def _patience(config: Config) -> Patience:
    return Patience(config.delivery.connect_timeout_s, config.delivery.response_timeout_s)


def _fields(delivery: Delivery) -> dict[str, Any]:
    return {
        "delivery": delivery.id,
        "study": delivery.study_id,
        "destination": delivery.destination.name,
        "revision": delivery.revision,
        "attempt": delivery.attempts,
    }


def _fault_of(objects: Sequence[DeliveryObject]) -> str:
    """Say why objects cannot be sent; empty where each is as it was saved."""
    if not objects:
        return _GONE
    for one in objects:
        try:
            with one.path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256")
        except FileNotFoundError:
            return _GONE
        if digest.hexdigest() != one.sha256:
            return _DAMAGED
    return ""


def _log_failure(delivery: Delivery, state: DeliveryState, why: str) -> None:
    if state is DeliveryState.DEAD:
        log.error("delivery is DEAD and needs a person: ich-node resend", **_fields(delivery), why=why)
    else:
        log.warning("delivery failed, will be tried again", **_fields(delivery), why=why)
