"""Somebody acknowledges an alert, by a page or the API: it is entered, recorded and logged, the same for all."""

from __future__ import annotations

from ich_node.job_queue.alert_answers import AskedAlert, acknowledge
from ich_node.log import EventLog
from ich_node.web.site import Site

log = EventLog("web")


def acknowledge_by(
    site: Site, asked: AskedAlert, name: str, *, how: str, address: str, recorded_as: str = "", by: str | None = None
) -> bool:
    """Acknowledge an alert. False: somebody has before, or it cannot be answered.

    Args:
        name: who, as the alert says it from then on.
        how: by which way.
        recorded_as: who, as the audit trail says it, where that is another name.
        by: who, as the log says it, where that is another name.
    """
    identifier = asked.alert.identifier
    if not (asked.answerable and acknowledge(site.database, identifier, name)):
        return False
    site.audit.alert_acknowledged(asked, recorded_as or name, how, address)
    log.info(
        "alert acknowledged", alert=identifier, study=asked.alert.study_id, how=how, by=name if by is None else by
    )  # fmt: skip
    return True
