"""Ask the PACS about what is arriving: images of a series, earlier studies of a patient. Nobody waits for an answer."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from typing import Final

from ich_node.association import Patience
from ich_node.audit import AuditTrail, Peer, open_trail
from ich_node.config import Config
from ich_node.database import Database
from ich_node.errors import DestinationRefuses, DestinationUnavailable, TransientError
from ich_node.job_queue.counts import SeriesQuestion, note_asked, note_count, series_to_ask
from ich_node.job_queue.history_questions import (
    HistoryQuestion,
    note_history,
    note_history_asked,
    studies_to_ask_about,
)
from ich_node.log import EventLog
from ich_node.query_retrieve import (
    QUERY_SYNTAX,
    STUDY_ROOT_FIND,
    count_instances,
    find_earlier_studies,
    read_study_of_patient,
)
from ich_node.records import Destination
from ich_node.stored_files import stored_files

_POLL_S: Final = 0.1
_AT_ONCE: Final = 20
_LONGEST_CONNECT_S: Final = 3.0
_LONGEST_RESPONSE_S: Final = 5.0
"""For earlier studies, which are worth less the later they are known."""

log = EventLog("deliver")


class PacsAsker(ABC):
    """Asks one kind of question, in a thread of its own: a PACS that hangs holds up neither deliveries nor others."""

    thread_name: str

    def __init__(self, config: Config, database: Database, pacs: Destination, trail: AuditTrail | None = None) -> None:
        settings = config.delivery
        self._trail = trail or open_trail(config, "deliver")
        self._config = config
        self._database = database
        self._pacs = pacs
        self._patience = Patience(settings.connect_timeout_s, settings.response_timeout_s)
        self._silent = False

    def run(self, stop: threading.Event) -> None:
        """Ask until told to stop."""
        while not stop.is_set():
            try:
                self.step()
            except TransientError as error:
                log.error("nothing can be written now; trying again", error)
            stop.wait(_POLL_S)

    @abstractmethod
    def step(self) -> bool:
        """Ask about what there is to ask; False where there is nothing."""

    def _asked(self, identifier: bytes) -> None:
        peer = Peer(self._pacs.ae_title, self._pacs.host)
        self._trail.queried(peer, STUDY_ROOT_FIND, identifier, QUERY_SYNTAX)

    def _turns(self, *, silent: bool) -> bool:
        """Note whether the PACS answers; True where it is another way than at the last question."""
        turned, self._silent = silent != self._silent, silent
        return turned


class CountAsker(PacsAsker):
    """How many images has a series?"""

    thread_name = "ask"

    def step(self) -> bool:
        """Ask about series that are arriving."""
        questions = series_to_ask(self._database, _AT_ONCE)
        for question in questions:
            self._ask(question)
        return bool(questions)

    def _ask(self, question: SeriesQuestion) -> None:
        asked_at = note_asked(self._database, question.series_id)
        uids, ae_title = (question.study_instance_uid, question.series_instance_uid), self._config.node.ae_title
        try:
            count = count_instances(self._pacs, ae_title, *uids, self._patience, self._asked)
        except (DestinationUnavailable, DestinationRefuses) as error:
            if self._turns(silent=True):
                pacs = self._pacs.ae_title
                log.warning("the PACS does not say how many images a series has", ae_title=pacs, why=str(error))
            return
        if self._turns(silent=False):
            log.info("the PACS answers again how many images a series has")
        log.debug("the PACS was asked how many images a series has", series=question.series_id, count=count)
        note_count(self._database, question.series_id, asked_at, count)


class HistoryAsker(PacsAsker):
    """Which earlier studies has a patient?"""

    thread_name = "ask-history"

    def __init__(self, config: Config, database: Database, pacs: Destination, trail: AuditTrail | None = None) -> None:
        super().__init__(config, database, pacs, trail)
        settings = config.delivery
        self._patience = Patience(
            min(settings.connect_timeout_s, _LONGEST_CONNECT_S), min(settings.response_timeout_s, _LONGEST_RESPONSE_S)
        )

    def step(self) -> bool:
        """Ask about studies that are arriving."""
        questions = studies_to_ask_about(self._database, _AT_ONCE)
        for question in questions:
            self._ask(question)
        return bool(questions)

    def _ask(self, question: HistoryQuestion) -> None:
        note_history_asked(self._database, question.study_id)
        study = read_study_of_patient(stored_files(self._config).path(question.path))
        if study is None:
            return
        try:
            ae_title = self._config.node.ae_title
            earlier = find_earlier_studies(self._pacs, ae_title, study, self._patience, self._asked)
        except (DestinationUnavailable, DestinationRefuses) as error:
            if self._turns(silent=True):
                pacs = self._pacs.ae_title
                log.warning("the PACS does not say which earlier studies there are", ae_title=pacs, why=str(error))
            return
        if self._turns(silent=False):
            log.info("the PACS answers again which earlier studies there are")
        log.debug("the PACS was asked for earlier studies", study=question.study_id, told=earlier is not None)
        if earlier is not None:
            note_history(self._database, question.study_id, earlier)
