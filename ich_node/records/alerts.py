"""What people are told, by which channel, and where each message stands."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Literal

from ich_node.records.states import Presence, Triage


class AlertStage(StrEnum):
    """What a message is to its receiver."""

    PRELIMINARY = "preliminary"
    """Slices that arrived so far are far above the threshold; the series is not whole. HL7 result status P."""
    FINAL = "final"
    """The result of a study. HL7 result status F."""
    CORRECTION = "correction"
    """A later result says something else than what was told. HL7 result status C."""
    WITHDRAWN = "withdrawn"
    """What was told does not stand any more and nothing takes its place: read the study. HL7 result status W."""
    OPERATOR = "operator"
    """About the node, for who keeps it running; not about a patient."""
    TEST = "test"
    """Marked as a test; see ``ich-node alert test``."""


class AlertState(StrEnum):
    """Where one message in the outbox stands."""

    WAITING = "WAITING"
    """A step of an escalation whose time has not come."""
    PENDING = "PENDING"
    SENDING = "SENDING"
    DELIVERED = "DELIVERED"
    ACKNOWLEDGED = "ACKNOWLEDGED"
    UNANSWERED = "UNANSWERED"
    """The last step of an escalation was delivered and nobody answered."""
    HELD = "HELD"
    SUPERSEDED = "SUPERSEDED"
    DEAD = "DEAD"


@dataclass(frozen=True, slots=True)
class AlertStudy:
    """Patient, study and order as a receiver files them. Patient data: never logged. Empty: not in the header."""

    study_instance_uid: str
    patient_id: str = ""
    issuer_of_patient_id: str = ""
    patient_name: str = ""
    """As DICOM writes it, alphabetic group first: ``Yamada^Tarou=山田^太郎``."""
    patient_birth_date: str = ""
    """YYYYMMDD."""
    patient_sex: str = ""
    accession_number: str = ""
    issuer_of_accession_number: str = ""
    placer_order_number: str = ""
    filler_order_number: str = ""
    requested_procedure_id: str = ""
    study_id: str = ""
    study_date: str = ""
    """YYYYMMDD."""
    study_time: str = ""
    """HHMMSS, perhaps with a fraction."""
    study_description: str = ""
    station_name: str = ""
    institution_name: str = ""
    referring_physician_name: str = ""


@dataclass(frozen=True, slots=True)
class AlertMessage:
    """One message on its way to one channel. A repeat carries the same identifier."""

    identifier: str
    """20 characters A-Z, 2-7: MSH-10, Idempotency-Key, part of Message-ID."""
    stage: AlertStage
    created_at: datetime
    """Aware; of the message, not of the attempt."""
    headline: str
    """One ASCII sentence without patient data, fit for a subject line: "Suspected intracranial hemorrhage"."""
    text: str
    """The whole in ASCII prose without patient data."""
    triage: Triage | None = None
    reason: str = ""
    """Why there is no result, in words."""
    presence: dict[str, Presence] = field(default_factory=dict)
    """Per class; empty where nothing was scored."""
    probabilities: dict[str, float] = field(default_factory=dict)
    """Per class, 0 to 1."""
    thresholds: dict[str, tuple[float, float]] = field(default_factory=dict)
    """Per class: low, high."""
    key_slices: tuple[str, ...] = ()
    """Instance Numbers to look at first, as text."""
    model: str = ""
    """Name and version."""
    revision: int = 0
    """Of the study's report; 0 for a preliminary message."""
    supersedes: str = ""
    """Identifier of the message of the same channel that this one replaces."""
    prior: str = ""
    """What is known from before: "first study", or "hemorrhage was reported on 2026-11-03"."""
    acknowledge_url: str = ""
    """Where a person says that it was seen; empty where the node has no web address."""
    urgent: bool = False
    """To be read first. Never written as a low priority where it is False: the order may have a higher one."""
    study: AlertStudy | None = None
    """None where the message is about no study."""


@dataclass(frozen=True, slots=True)
class AlertReceipt:
    """How a channel took a message."""

    answer: str
    """In words, without patient data: "AA", "HTTP 204", "250 accepted by mail.example.org"."""
    acknowledged: bool = False
    """The answer itself says that the right people have it."""


@dataclass(frozen=True, slots=True)
class Hl7Channel:
    """ORU^R01 over MLLP."""

    name: str
    host: str
    port: int
    version: Literal["2.3", "2.3.1", "2.4", "2.5", "2.5.1"] = "2.5.1"
    sending_application: str = "ICH_NODE"
    sending_facility: str = ""
    receiving_application: str = ""
    receiving_facility: str = ""
    character_set: Literal["ASCII", "8859/1", "8859/2", "8859/15", "UNICODE UTF-8"] = "UNICODE UTF-8"
    """Of HL7 table 0211, written in MSH-18."""
    answer_acknowledges: bool = False
    """An application accept (AA, CA) counts as seen by the right people."""
    template: str = ""
    """Text of a site's own template; empty: the one that comes with the node."""
    timeout_s: float = 10.0
    tls: bool = False
    ca_file: Path | None = None
    certificate_file: Path | None = None
    key_file: Path | None = None


@dataclass(frozen=True, slots=True)
class WebhookChannel:
    """A signed JSON POST."""

    name: str
    url: str
    secret: str = field(default="", repr=False)
    """Of the signature; empty: the call is not signed."""
    patient_data: bool = False
    """Send patient and study identifiers too."""
    answer_acknowledges: bool = False
    """HTTP 200 with ``{"acknowledged": true}`` counts as seen by the right people."""
    timeout_s: float = 10.0
    ca_file: Path | None = None
    certificate_file: Path | None = None
    key_file: Path | None = None


@dataclass(frozen=True, slots=True)
class MailChannel:
    """An e-mail."""

    name: str
    host: str
    port: int
    sender: str
    recipients: tuple[str, ...]
    security: Literal["starttls", "tls", "none"] = "starttls"
    user: str = ""
    password: str = field(default="", repr=False)
    patient_data: bool = False
    """Name patient and accession in the text; never in the subject."""
    template: str = ""
    """Text of a site's own template of the text part; empty: the one that comes with the node."""
    timeout_s: float = 20.0
    ca_file: Path | None = None


Channel = Hl7Channel | WebhookChannel | MailChannel
