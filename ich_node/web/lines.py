"""A line of the worklist, as people read it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

from ich_node.queries import AlertStatus, DeliveryStatus, StudyStatus, WorklistStudy
from ich_node.records import HEMORRHAGE_CLASSES, OPEN_SERIES, AlertState, DeliveryState
from ich_node.web.gate import Visitor
from ich_node.web.patients import Patient

if TYPE_CHECKING:
    from ich_node.web.site import Site

_SUBTYPES: Final = tuple(one for one in HEMORRHAGE_CLASSES if one != "any")
_ARRIVED: Final = (DeliveryState.DELIVERED, DeliveryState.COMMITTED)


@dataclass(frozen=True, slots=True)
class Line:
    """What is shown of a study in a list."""

    study: WorklistStudy
    patient: Patient
    """Nobody, for who may not see whose study it is."""
    triage: str
    """positive, indeterminate, negative, waiting, none or withdrawn: the colour of the line."""
    headline: str
    probability: float | None
    """Of any hemorrhage."""
    subtypes: tuple[tuple[str, float], ...]
    """Those that are present, the most probable first."""
    why_not: str
    """Why there is no result; empty where there is one, or one is to come."""
    delivery: str
    delivery_state: str
    """good, waiting, bad or nothing."""
    alert: str
    alert_state: str
    acknowledge: str
    """Identifier of an alert that somebody may acknowledge; empty where there is none."""
    incomplete: bool
    viewer_url: str


def lines_of(studies: Sequence[WorklistStudy], site: Site, visitor: Visitor) -> list[Line]:
    """Make the lines of some studies for somebody."""
    return [line_of(one, site, visitor) for one in studies]


def line_of(study: WorklistStudy, site: Site, visitor: Visitor) -> Line:
    """Make the line of a study for somebody."""
    status = study.status
    patient = site.patients.of(study.newest_file) if visitor.sees_patients else Patient()
    basis = status.basis
    finding = (basis.finding or {}) if basis is not None else {}
    probabilities = finding.get("probabilities", {})
    delivery, delivery_state = _delivery(status.deliveries, status.revision)
    alert, alert_state, answerable = _alert(status.alerts)
    triage = _triage(status)
    return Line(
        study=study,
        patient=patient,
        triage=triage,
        headline=_headline(triage, finding),
        probability=probabilities.get("any"),
        subtypes=_subtypes(finding),
        why_not=_why_not(status.outcome) if triage in ("none", "withdrawn") else "",
        delivery=delivery,
        delivery_state=delivery_state,
        alert=alert,
        alert_state=alert_state,
        acknowledge=answerable,
        incomplete=basis is not None and basis.complete is False,
        viewer_url=_viewer_url(site, status.study_instance_uid, patient),
    )


def _triage(status: StudyStatus) -> str:
    if status.withdrawn:
        return "withdrawn"
    if status.triage is not None:
        return str(status.triage)
    return "waiting" if any(one.state in OPEN_SERIES for one in status.series) else "none"


def _why_not(outcome: str) -> str:
    """Give the reason as a sentence, without the headline that stands above it."""
    text = outcome.removeprefix("not analysed: ")
    return text[:1].upper() + text[1:]


_HEADLINES: Final = {
    "positive": "Hemorrhage",
    "indeterminate": "Indeterminate",
    "negative": "No hemorrhage found",
    "waiting": "In progress",
    "none": "Not analysed",
    "withdrawn": "Withdrawn",
}


def _headline(triage: str, finding: dict[str, object]) -> str:
    mark = "TEST MODEL: " if finding.get("test_model") else ""
    return mark + _HEADLINES[triage]


def _subtypes(finding: dict[str, dict[str, float]]) -> tuple[tuple[str, float], ...]:
    presence, probabilities = finding.get("presence", {}), finding.get("probabilities", {})
    present = [(name, probabilities[name]) for name in _SUBTYPES if str(presence.get(name)) == "present"]
    return tuple(sorted(present, key=lambda one: -one[1]))


def _delivery(deliveries: Sequence[DeliveryStatus], revision: int) -> tuple[str, str]:
    current = [one for one in deliveries if one.revision == revision]
    if not current:
        return "", "nothing"
    if dead := [one for one in current if one.state == DeliveryState.DEAD]:
        return f"not in {dead[0].destination}", "bad"
    waiting = [one for one in current if one.state in (DeliveryState.PENDING, DeliveryState.SENDING)]
    if waiting:
        tries = f", {waiting[0].attempts} tries" if waiting[0].attempts else ""
        return f"on its way to {waiting[0].destination}{tries}", "waiting"
    there = list(dict.fromkeys(one.destination for one in current if one.state in _ARRIVED))
    return (f"in {', '.join(there)}", "good") if there else ("held", "nothing")


def _alert(alerts: Sequence[AlertStatus]) -> tuple[str, str, str]:
    told = [one for one in alerts if one.state not in (AlertState.SUPERSEDED, AlertState.HELD)]
    if seen := next((one for one in alerts if one.acknowledged_at is not None), None):
        return f"seen by {seen.acknowledged_by}", "good", ""
    sent = [one for one in told if one.sent_at is not None]
    if sent:
        unanswered = any(one.state == AlertState.UNANSWERED for one in sent)
        return ("nobody answered" if unanswered else "told"), ("bad" if unanswered else "waiting"), sent[-1].identifier
    if any(one.state == AlertState.DEAD for one in told):
        return "nobody could be told", "bad", ""
    return ("being told", "waiting", "") if told else ("", "nothing", "")


def _viewer_url(site: Site, study_instance_uid: str, patient: Patient) -> str:
    """Fill the template of the site's viewer; empty where there is none."""
    values = {
        "study_instance_uid": study_instance_uid,
        "accession_number": patient.accession_number,
        "patient_id": patient.patient_id,
    }
    url = site.config.web.viewer_url
    for name, value in values.items():
        url = url.replace(f"{{{name}}}", quote(value, safe=""))
    return url
