"""Ask a destination to commit to what it was sent, and draw the conclusions from its answers; a thread for each."""

from __future__ import annotations

import threading
from typing import Final

from ich_node.association import Patience
from ich_node.config import Config
from ich_node.database import Database
from ich_node.errors import DestinationRefuses, DestinationUnavailable, StorageFailed, StoreRefused, TransientError
from ich_node.failpoint import reach
from ich_node.job_queue import DeliveryRules
from ich_node.job_queue.commitments import (
    SettledReport,
    claim_commitment,
    note_acknowledged,
    note_not_asked,
    settle_reports,
    stop_asking,
    take_report,
)
from ich_node.log import EventLog
from ich_node.records import CommitmentReport, CommitmentRequest, Destination, ReportTaken
from ich_node.routing import configured_destinations
from ich_node.storage_commitment import ask_commitment

_POLL_S: Final = 1.0
_SPARE_LEASE_S: Final = 60.0
_SECONDS_PER_HOUR: Final = 3600.0

log = EventLog("deliver")


class CommitmentAsker:
    """Asks one destination; one that hangs holds up neither deliveries nor the others."""

    def __init__(self, config: Config, database: Database, destination: Destination) -> None:
        settings = config.delivery
        self._database = database
        self._destination = destination
        self._ae_title = config.node.ae_title
        self._patience = Patience(settings.connect_timeout_s, settings.response_timeout_s)
        self._rules = delivery_rules(config)
        self._wait_s = settings.commitment_wait_h * _SECONDS_PER_HOUR
        self._stay_s = settings.commitment_stay_s
        self._lease_s = _SPARE_LEASE_S + settings.connect_timeout_s + 3 * settings.response_timeout_s
        self._silent = False

    def run(self, stop: threading.Event) -> None:
        """Ask until told to stop."""
        while not stop.is_set():
            try:
                busy = self.step()
            except TransientError as error:  # what was being asked is asked again
                log.error("nothing can be written now; trying again", error)
                busy = False
            except StorageFailed:  # the deliverer says so, and ends
                return
            if not busy:
                stop.wait(_POLL_S)

    def step(self) -> bool:
        """Settle what was answered, and ask once about what is due; False where there was nothing to do."""
        settled = settle_reports(self._database, self._destination.name, self._rules)
        for one in settled:
            reach("commitment-answer-matched")
            self._tell(one)
        request = claim_commitment(self._database, self._destination, lease_s=self._lease_s)
        if request is not None:
            reach("commitment-before-ask")
            self._ask(request)
        return bool(settled) or request is not None

    def _ask(self, request: CommitmentRequest) -> None:
        def acknowledged() -> None:
            reach("commitment-asked")
            note_acknowledged(self._database, request, self._wait_s)
            self._silent = False
            log.info("storage commitment asked", **self._fields(request.id), objects=len(request.objects))

        def take(report: CommitmentReport) -> ReportTaken:
            taken = take_report(self._database, report, self._destination.ae_title, self._destination.host)
            if taken not in (ReportTaken.TAKEN, ReportTaken.KNOWN):
                log.warning("answer of storage commitment refused", **self._fields(request.id), why=taken.value)
            return taken

        try:
            ask_commitment(
                self._destination,
                self._ae_title,
                request,
                self._patience,
                acknowledged=acknowledged,
                take=take,
                stay_s=self._stay_s,
            )
        except (DestinationUnavailable, DestinationRefuses, StoreRefused) as error:
            note_not_asked(self._database, request, f"storage commitment not asked: {error}", self._rules)
            if not self._silent:
                log.warning("storage commitment cannot be asked", **self._fields(request.id), why=str(error))
            self._silent = True

    def _tell(self, settled: SettledReport) -> None:
        fields = self._fields(settled.transaction)
        if settled.differs:
            log.warning("answer of storage commitment does not count", **fields, why=settled.why)
            return
        if settled.committed:
            log.info("committed", **fields, objects=settled.committed)
        if settled.sent_again:
            log.warning("not committed, will be sent again", **fields, objects=settled.sent_again, why=settled.why)
        if settled.dead:
            log.error("not committed: DEAD, needs a person", None, **fields, objects=settled.dead, why=settled.why)

    def _fields(self, transaction: int) -> dict[str, object]:
        return {"destination": self._destination.name, "transaction": transaction}


def start_asking_commitment(config: Config, database: Database, stop: threading.Event) -> None:
    """Ask the destinations that are configured so, each in a thread of its own; the others are not asked any more."""
    wanted = {one.name for one in config.destination if one.commitment}
    if count := stop_asking(database, wanted):
        log.warning("storage commitment is not asked any more of what was delivered", objects=count)
    if config.node.mode == "shadow":
        return
    for destination in configured_destinations(config):
        if destination.name in wanted:
            asker = CommitmentAsker(config, database, destination)
            name = f"commit-{destination.name}"
            threading.Thread(target=asker.run, args=(stop,), name=name, daemon=True).start()


def delivery_rules(config: Config) -> DeliveryRules:
    """Say how long to try, and how often, as the configuration does."""
    settings = config.delivery
    return DeliveryRules(
        first_retry_s=settings.first_retry_s,
        longest_retry_s=settings.longest_retry_s,
        give_up_days=settings.give_up_days,
        refused_tries=settings.refused_tries,
        paused_retry_s=settings.paused_retry_s,
    )
