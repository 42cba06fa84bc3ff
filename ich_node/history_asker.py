"""Ask the PACS for earlier studies of whose images are arriving. Nothing and nobody waits for the answer."""

from __future__ import annotations

import threading
from typing import Final

from ich_node.association import Patience
from ich_node.config import Config
from ich_node.database import Database
from ich_node.errors import DestinationRefuses, DestinationUnavailable, TransientError
from ich_node.job_queue.history_questions import (
    HistoryQuestion,
    note_history,
    note_history_asked,
    studies_to_ask_about,
)
from ich_node.log import EventLog
from ich_node.query_retrieve import find_earlier_studies, read_study_of_patient
from ich_node.records import Destination

_POLL_S: Final = 0.2
_AT_ONCE: Final = 20
_LONGEST_CONNECT_S: Final = 3.0
_LONGEST_RESPONSE_S: Final = 5.0

log = EventLog("deliver")


class HistoryAsker:
    """Has a thread of its own: a PACS that hangs here holds up neither deliveries nor other questions."""

    def __init__(self, config: Config, database: Database, pacs: Destination) -> None:
        self._config = config
        self._database = database
        self._pacs = pacs
        settings = config.delivery
        self._patience = Patience(
            min(settings.connect_timeout_s, _LONGEST_CONNECT_S), min(settings.response_timeout_s, _LONGEST_RESPONSE_S)
        )
        self._silent = False
        """The last question had no answer: the next one without is not logged again."""

    def run(self, stop: threading.Event) -> None:
        """Ask until told to stop."""
        while not stop.is_set():
            try:
                self.step()
            except TransientError as error:
                log.error("the database stays locked; trying again", error)
            stop.wait(_POLL_S)

    def step(self) -> bool:
        """Ask about what there is to ask; False where there is nothing."""
        questions = studies_to_ask_about(self._database, _AT_ONCE)
        for question in questions:
            self._ask(question)
        return bool(questions)

    def _ask(self, question: HistoryQuestion) -> None:
        note_history_asked(self._database, question.study_id)
        study = read_study_of_patient(self._config.state_directory / question.path)
        if study is None:
            return
        try:
            earlier = find_earlier_studies(self._pacs, self._config.node.ae_title, study, self._patience)
        except (DestinationUnavailable, DestinationRefuses) as error:
            self._note_silence(str(error))
            return
        if self._silent:
            log.info("the PACS answers again which earlier studies there are")
        self._silent = False
        log.debug("the PACS was asked for earlier studies", study=question.study_id, told=earlier is not None)
        if earlier is not None:
            note_history(self._database, question.study_id, earlier)

    def _note_silence(self, why: str) -> None:
        if not self._silent:
            log.warning("the PACS does not say which earlier studies there are", ae_title=self._pacs.ae_title, why=why)
        self._silent = True
