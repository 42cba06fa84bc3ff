"""What the audit trail records of the pages."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Final

from ich_node.audit import AuditTrail
from ich_node.audit.subject import read_subject
from ich_node.job_queue.alert_answers import AskedAlert
from ich_node.job_queue.alert_outbox import source_at_hand
from ich_node.stored_files import StoredFiles
from ich_node.web.patients import Patient

_AGAIN_S: Final = 3600.0
"""A patient whom somebody sees again and again, in a list or in an open page, is recorded once in so long."""
_MOST_SEEN: Final = 50_000


class PageAudit:
    """Records who looked at what, who logged in, who acknowledged an alert, and what operators did."""

    def __init__(self, trail: AuditTrail, files: StoredFiles) -> None:
        self._trail = trail
        self._files = files
        self._seen: OrderedDict[tuple[str, str, str], float] = OrderedDict()
        self._lock = threading.Lock()

    def alert_viewed(self, asked: AskedAlert, address: str) -> None:
        """Record that the page of an alert was shown."""
        alert = asked.alert
        subject = read_subject(source_at_hand(self._files, alert), alert.study_instance_uid)
        self._trail.page_viewed(subject, alert.identifier, address)

    def alert_acknowledged(self, asked: AskedAlert, name: str, how: str, address: str) -> None:
        """Record that somebody acknowledged an alert."""
        alert = asked.alert
        subject = read_subject(source_at_hand(self._files, alert), alert.study_instance_uid)
        self._trail.alert_acknowledged(subject, alert.identifier, name, how, address)

    def refused(self, address: str) -> None:
        """Record that a link was no true one."""
        self._trail.refused(address, "page refused: no true link of an alert")

    def logged_in(self, name: str, address: str) -> None:
        """Record that somebody logged in."""
        self._trail.authenticated(name, address, login=True)

    def logged_out(self, name: str, address: str) -> None:
        """Record that somebody logged out."""
        self._trail.authenticated(name, address, login=False)

    def login_refused(self, name: str, address: str, why: str) -> None:
        """Record that somebody was not let in."""
        self._trail.authenticated(name, address, login=True, why_not=why)

    def patients_listed(self, name: str, listed: Sequence[tuple[Patient, str]], address: str) -> None:
        """Record which patients somebody saw in a list.

        Args:
            listed: each with its Study Instance UID.
        """
        for patient, study_instance_uid in listed:
            if self._is_new(name, study_instance_uid, "worklist"):
                self._trail.study_viewed(name, patient.subject(study_instance_uid), address, "worklist")

    def study_viewed(self, name: str, patient: Patient, study_instance_uid: str, address: str, what: str) -> None:
        """Record that somebody opened a study, or took an object of it."""
        self._trail.study_viewed(name, patient.subject(study_instance_uid), address, what)

    def study_seen_again(
        self, name: str, whose: Callable[[], Patient], study_instance_uid: str, address: str, what: str
    ) -> None:
        """Record that somebody was shown what a page asks for again and again: once in a while.

        Args:
            whose: reads whose study it is; called only where that is recorded.
        """
        if self._is_new(name, study_instance_uid, what):
            self._trail.study_viewed(name, whose().subject(study_instance_uid), address, what)

    def feedback_given(self, name: str, patient: Patient, study_instance_uid: str, address: str, agrees: bool) -> None:
        """Record that a reader said what a study shows."""
        said = "agrees" if agrees else "disagrees"
        self._trail.feedback_given(name, patient.subject(study_instance_uid), address, Reader=said)

    def labels_exported(self, name: str, studies: Sequence[str], address: str) -> None:
        """Record that somebody took what readers say of studies as a table."""
        self._trail.labels_exported(address, studies, name, address)

    def operated(self, name: str, address: str, command: str, studies: Sequence[str] = (), **details: str) -> None:
        """Record that somebody did by a page or the API what a command does."""
        self._trail.operated(name, address, command, studies, **details)

    def trail_read(self, name: str, address: str, what: str) -> None:
        """Record that somebody read the trail."""
        self._trail.log_used(what, name, address)

    @property
    def trail(self) -> AuditTrail:
        """The trail itself, for what is recorded where it happens."""
        return self._trail

    def _is_new(self, name: str, study_instance_uid: str, what: str) -> bool:
        now, key = time.monotonic(), (name, study_instance_uid, what)
        with self._lock:
            seen_at = self._seen.pop(key, None)
            is_new = seen_at is None or now - seen_at > _AGAIN_S
            self._seen[key] = now if is_new or seen_at is None else seen_at
            while len(self._seen) > _MOST_SEEN:
                self._seen.popitem(last=False)
        return is_new
