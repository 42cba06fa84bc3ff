"""Answers to alerts by HL7: a message that names an alert and accepts it acknowledges it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from ich_node.alert import AnswerServer, HL7Answer, HL7Reply
from ich_node.audit import AuditTrail, open_trail
from ich_node.audit.subject import read_subject
from ich_node.config import Config
from ich_node.database import Database
from ich_node.errors import TransientError
from ich_node.job_queue.alert_answers import acknowledge, find_alert
from ich_node.job_queue.alert_outbox import source_at_hand
from ich_node.log import EventLog
from ich_node.service import listen
from ich_node.stored_files import stored_files

_UNKNOWN: Final = HL7Reply("AE", "names no alert of this node in MSA-2 or OBR-3")
_NOT_NOTED: Final = HL7Reply("AE", "not noted, the node is busy: send it again")
_NO_ACKNOWLEDGEMENT: Final = HL7Reply("AA", "understood; the alert is not acknowledged by it")

log = EventLog("answers")


@contextmanager
def taking_answers(
    config: Config, database: Database, stop: threading.Event, trail: AuditTrail | None = None
) -> Iterator[None]:
    """Take answers in a thread, where that is switched on. A thread that ends by itself sets ``stop``.

    Raises:
        StartError: the port cannot be listened on.
    """
    settings = config.alert_answers
    if not settings.enabled:
        yield
        return
    with listen(settings.bind, settings.port, "alert_answers.port and alert_answers.bind") as listening:
        decide = Answerer(config, database, trail).decide
        server = AnswerServer(listening, settings.allows, decide, settings.idle_timeout_s)
        thread = threading.Thread(target=_run, args=(server, stop), name="answers")
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()


def _run(server: AnswerServer, stop: threading.Event) -> None:
    try:
        server.run(stop)
    finally:
        stop.set()


class Answerer:
    """Decides what an answer does."""

    def __init__(self, config: Config, database: Database, trail: AuditTrail | None = None) -> None:
        self._files = stored_files(config)
        self._trail = trail or open_trail(config, "deliver")
        self._database = database

    def decide(self, answer: HL7Answer) -> HL7Reply:
        """Acknowledge the alert that an answer accepts, and say what came of it."""
        try:
            return self._decide(answer)
        except TransientError as error:
            log.error("an answer to an alert could not be noted", error)
            return _NOT_NOTED

    def _decide(self, answer: HL7Answer) -> HL7Reply:
        asked = find_alert(self._database, answer.identifier)
        if asked is None:
            log.warning("an answer names no alert of this node", sender=answer.by)
            return _UNKNOWN
        fields = {"alert": asked.alert.identifier, "study": asked.alert.study_id, "how": "HL7", "by": answer.by}
        if not answer.accepts:
            log.warning("an answer does not acknowledge its alert", **fields, code=answer.code)
            return _NO_ACKNOWLEDGEMENT
        if acknowledge(self._database, asked.alert.identifier, answer.by):
            subject = read_subject(source_at_hand(self._files, asked.alert), asked.alert.study_instance_uid)
            self._trail.alert_acknowledged(subject, asked.alert.identifier, answer.by, "HL7")
            log.info("alert acknowledged", **fields)
            return HL7Reply("AA", "acknowledged")
        return HL7Reply("AA", "nothing to acknowledge: somebody has already, or it is no longer open")
