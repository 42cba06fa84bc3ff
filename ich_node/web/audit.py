"""What the audit trail records of the pages."""

from __future__ import annotations

from pathlib import Path

from fastapi import Request

from ich_node.audit import AuditTrail
from ich_node.audit.subject import read_subject
from ich_node.job_queue.alert_answers import AskedAlert
from ich_node.job_queue.alert_outbox import source_path


class PageAudit:
    """Records who looked at an alert and who acknowledged it.

    Behind a reverse proxy the address is the proxy's: nothing that a browser says of itself is believed.
    """

    def __init__(self, trail: AuditTrail, state_directory: Path) -> None:
        self._trail = trail
        self._state = state_directory

    def viewed(self, request: Request, asked: AskedAlert) -> None:
        """Record that the page of an alert was shown."""
        alert = asked.alert
        subject = read_subject(source_path(self._state, alert), alert.study_instance_uid)
        self._trail.page_viewed(subject, alert.identifier, _address(request))

    def acknowledged(self, request: Request, asked: AskedAlert, name: str) -> None:
        """Record that somebody acknowledged an alert."""
        alert = asked.alert
        subject = read_subject(source_path(self._state, alert), alert.study_instance_uid)
        self._trail.alert_acknowledged(subject, alert.identifier, name, "link", _address(request))

    def refused(self, request: Request) -> None:
        """Record that a link was no true one."""
        self._trail.refused(_address(request), "page refused: no true link of an alert")


def _address(request: Request) -> str:
    return "" if request.client is None else request.client.host
