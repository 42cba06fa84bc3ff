"""Answers of storage commitment that come on an association of the destination's own (PS3.4 J.3.3)."""

from __future__ import annotations

from collections.abc import Sequence

from pynetdicom import build_context
from pynetdicom.events import Event
from pynetdicom.presentation import PresentationContext

from ich_node.association import UNCOMPRESSED
from ich_node.config import Config
from ich_node.database import Database
from ich_node.errors import TransientError
from ich_node.job_queue.commitments import take_report
from ich_node.log import EventLog
from ich_node.records import CommitmentReport, ReportTaken
from ich_node.storage_commitment import PROCESSING_FAILURE, STORAGE_COMMITMENT, SUCCESS, answer_event_report

log = EventLog("receive")


class CommitmentReports:
    """Takes them into the database; the deliverer draws the conclusions."""

    def __init__(self, config: Config, database: Database) -> None:
        self._database = database
        self._ae_titles = {one.ae_title for one in config.destination if one.commitment}

    def contexts_for(self, calling_ae_title: str, proposed: Sequence[str]) -> list[PresentationContext]:
        """Accept storage commitment from a destination that is asked for it, which is the SCP (PS3.7 D.3.3.4)."""
        if calling_ae_title not in self._ae_titles or STORAGE_COMMITMENT not in proposed:
            return []
        context = build_context(STORAGE_COMMITMENT, list(UNCOMPRESSED))
        context.scu_role, context.scp_role = False, True
        return [context]

    def on_event_report(self, event: Event) -> tuple[int, None]:
        """Answer an N-EVENT-REPORT: success means that it is in the database."""
        requestor = event.assoc.requestor
        calling, address = requestor.ae_title.strip(), requestor.address

        def take(report: CommitmentReport) -> ReportTaken:
            return take_report(self._database, report, calling, address)

        try:
            status = answer_event_report(event, take)
        except TransientError as error:
            log.error("answer of storage commitment not kept", error, calling_ae_title=calling, address=address)
            return PROCESSING_FAILURE, None
        origin = {"calling_ae_title": calling, "address": address, "status": f"0x{status:04X}"}
        if status == SUCCESS:
            log.info("answer of storage commitment taken", **origin)
        else:
            log.warning("answer of storage commitment refused", **origin)
        return status, None
