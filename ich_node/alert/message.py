"""What an alert says: the study's answer, and patient and study as its saved report names them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from pydicom import Dataset, dcmread
from pydicom.errors import InvalidDicomError
from pydicom.multival import MultiValue
from pydicom.valuerep import PersonName

from ich_node.errors import AlertRefused
from ich_node.records import HEMORRHAGE_CLASSES, Alert, AlertKind
from ich_node.records.alerts import NOT_ANALYSED, WITHDRAWN

RESEARCH_USE: Final = "Research software, not a medical device. Not for diagnosis. Unverified."
_NAMES: Final = {"any": "any intracranial hemorrhage"} | {name: f"{name} hemorrhage" for name in HEMORRHAGE_CLASSES[1:]}
_HEADLINES: Final = {
    "positive": "Suspected intracranial hemorrhage",
    "indeterminate": "Indeterminate for intracranial hemorrhage",
    "negative": "No intracranial hemorrhage found by the software; this does not exclude hemorrhage",
    NOT_ANALYSED: "Not analysed: there is no result, and this is not a negative result. Read the study",
    WITHDRAWN: "The earlier result does not hold, and none stands in its place. Read the study",
}
_STATUS: Final = {AlertKind.PRELIMINARY: "P", AlertKind.CORRECTION: "C", AlertKind.WITHDRAWN: "W"}
"""All others are F."""


@dataclass(frozen=True, slots=True)
class ClassFinding:
    """What is said of one class."""

    code: str
    """``any``, ``epidural`` ..."""
    name: str
    presence: str
    """``present``, ``indeterminate``, ``absent`` or ``undetermined``."""
    probability: float


@dataclass(frozen=True, slots=True)
class PersonNameParts:
    """A person's name as HL7 XPN wants it; of several representations the alphabetic one, else what there is."""

    family: str = ""
    given: str = ""
    middle: str = ""
    prefix: str = ""
    suffix: str = ""


@dataclass(frozen=True, slots=True)
class AlertMessage:
    """Everything that a template may name. Texts are empty where the study does not say."""

    identifier: str
    kind: str
    """``preliminary``, ``final``, ``correction``, ``withdrawn`` or ``test``."""
    result_status: str
    """As OBR-25 and OBX-11 (HL7 tables 0123, 0085): P, F, C or W."""
    outcome: str
    told_before: str
    headline: str
    first_identifier: str
    """Of the first alert about the study through this channel."""
    urgent: bool
    """Something is there that should be read first. Nothing else ever asks for another priority."""
    revision: int
    created_at: datetime
    findings: tuple[ClassFinding, ...] = ()
    notice: str = RESEARCH_USE
    study_instance_uid: str = ""
    accession_number: str = ""
    issuer_of_accession_number: str = ""
    patient_id: str = ""
    issuer_of_patient_id: str = ""
    patient_name: PersonNameParts = PersonNameParts()
    patient_birth_date: str = ""
    patient_sex: str = ""
    study_date: str = ""
    study_time: str = ""
    study_description: str = ""
    study_id: str = ""
    placer_order_number: str = ""
    filler_order_number: str = ""
    report_sop_instance_uid: str = ""
    test_model: bool = False
    """Shown for a test: it means nothing."""
    prior: str = ""
    """What is known of earlier studies of the patient, in words; empty where it is about the node itself."""
    prior_undated: str = ""
    """The same without dates, for who gets no patient data."""
    known_bleed: bool = False
    """This node reported hemorrhage for an earlier study of the patient."""
    link: str = ""
    """To the page that acknowledges the alert; empty where the node has none."""

    @property
    def created(self) -> str:
        """As HL7 DTM, in UTC."""
        return f"{self.created_at:%Y%m%d%H%M%S}+0000"


def message_of(alert: Alert, source_file: Path, link: str = "") -> AlertMessage:
    """Say what a study's alert says.

    Args:
        source_file: the study's Structured Report, or one of its images before there is one.
        link: to the page that acknowledges it.

    Raises:
        AlertRefused: it cannot be read.
    """
    try:
        report = dcmread(source_file, stop_before_pixels=True)
    except (OSError, InvalidDicomError) as error:
        raise AlertRefused(f"the study's report or image cannot be read ({type(error).__name__})") from None
    requests = report.get("ReferencedRequestSequence") or report.get("RequestAttributesSequence") or [Dataset()]
    request = requests[0]
    return AlertMessage(
        identifier=alert.identifier,
        kind=alert.kind,
        result_status=_STATUS.get(alert.kind, "F"),
        outcome=alert.outcome,
        told_before=alert.told_before,
        headline=headline_of(alert),
        first_identifier=alert.first_identifier or alert.identifier,
        urgent=alert.outcome == "positive",
        revision=alert.revision,
        created_at=datetime.fromtimestamp(alert.created_at, UTC),
        findings=findings_of(alert),
        study_instance_uid=alert.study_instance_uid,
        accession_number=_text(report, "AccessionNumber"),
        issuer_of_accession_number=_issuer(report, "IssuerOfAccessionNumberSequence"),
        patient_id=_text(report, "PatientID"),
        issuer_of_patient_id=_text(report, "IssuerOfPatientID"),
        patient_name=_name_parts(report.get("PatientName")),
        patient_birth_date=_text(report, "PatientBirthDate"),
        patient_sex=_text(report, "PatientSex"),
        study_date=_text(report, "StudyDate"),
        study_time=_text(report, "StudyTime").split(".")[0],
        study_description=_text(report, "StudyDescription"),
        study_id=_text(report, "StudyID"),
        placer_order_number=_order_number(report, request, "Placer"),
        filler_order_number=_order_number(report, request, "Filler"),
        report_sop_instance_uid=_text(report, "SOPInstanceUID") if alert.revision else "",
        test_model=alert.test_model,
        prior="" if alert.history is None else alert.history.in_words(),
        prior_undated="" if alert.history is None else alert.history.in_words(dated=False),
        known_bleed=alert.history is not None and alert.history.known_bleed,
        link=link,
    )


def headline_of(alert: Alert) -> str:
    """Say in a sentence what an alert of a study says; of no patient."""
    mark = "TEST MODEL, means nothing: " if alert.test_model else ""
    so_far = ", on the slices so far: PRELIMINARY" if alert.kind is AlertKind.PRELIMINARY else ""
    return f"{mark}{_HEADLINES[alert.outcome]}{so_far}"


def message_of_test(identifier: str) -> AlertMessage:
    """Say that this is a test, of no patient."""
    return AlertMessage(
        identifier=identifier,
        kind=AlertKind.TEST,
        result_status="F",
        outcome=AlertKind.TEST,
        told_before="",
        headline="TEST of the alert channel; no patient, no study",
        first_identifier=identifier,
        urgent=False,
        revision=0,
        created_at=datetime.now(UTC),
        patient_id="ICH-NODE-TEST",
        patient_name=PersonNameParts("TEST", "ALERT"),
        accession_number="ICH-NODE-TEST",
    )


def message_of_node(alert: Alert) -> AlertMessage:
    """Say what is wrong with the node itself, or that it has ended; of no patient."""
    ended = "ENDED: " if alert.kind is AlertKind.RESOLVED else ""
    return AlertMessage(
        identifier=alert.identifier,
        kind=alert.kind,
        result_status="F",
        outcome=alert.outcome,
        told_before="",
        headline=f"{ended}{alert.text}",
        first_identifier=alert.identifier,
        urgent=alert.kind is AlertKind.CONDITION,
        revision=0,
        created_at=datetime.fromtimestamp(alert.created_at, UTC),
        notice="From the node to its operators.",
    )


def findings_of(alert: Alert) -> tuple[ClassFinding, ...]:
    """List the classes of an alert of a study, in the order of the classes; none where no result stands."""
    return tuple(
        ClassFinding(name, _NAMES[name], alert.presence.get(name, "undetermined"), alert.probabilities[name])
        for name in HEMORRHAGE_CLASSES
        if name in alert.probabilities
    )


def _text(dataset: Dataset, keyword: str) -> str:
    value = dataset.get(keyword)
    return "" if value is None else str(value).strip()


def _order_number(source: Dataset, request: Dataset, whose: str) -> str:
    """As in the request, or beside it: images have them at either place."""
    keyword = f"{whose}OrderNumberImagingServiceRequest"
    return _text(request, keyword) or _text(source, keyword)


def _issuer(dataset: Dataset, keyword: str) -> str:
    items = dataset.get(keyword) or [Dataset()]
    return _text(items[0], "LocalNamespaceEntityID") or _text(items[0], "UniversalEntityID")


def _name_parts(value: MultiValue[PersonName] | PersonName | str | None) -> PersonNameParts:
    if isinstance(value, MultiValue):  # of an image as it came: a backslash that does not belong there
        value = next((one for one in value if one), None)
    if not value:
        return PersonNameParts()
    name = PersonName(value) if isinstance(value, str) else value
    if not (name.family_name or name.given_name):  # no alphabetic group
        others = (name.ideographic, name.phonetic)
        name = PersonName(next((one for one in others if one), str(value)))
    parts = (name.family_name, name.given_name, name.middle_name, name.name_prefix, name.name_suffix)
    return PersonNameParts(*(str(part) for part in parts))
