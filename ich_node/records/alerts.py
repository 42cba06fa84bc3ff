"""Alerts: what is told to whom, and the states that telling passes through."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Literal

from ich_node.records.history import PatientHistory

ChannelKind = Literal["hl7", "webhook", "mail"]

WITHDRAWN: Final = "withdrawn"
NOT_ANALYSED: Final = "not_analysed"
PRELIMINARY: Final = "preliminary"
"""What people were told of a study while its series was arriving."""


class AlertKind(StrEnum):
    """What an alert is to what was told before."""

    PRELIMINARY = "preliminary"
    """Before the series is complete."""
    FINAL = "final"
    """The first that is told of a study, or what confirms a preliminary one."""
    CORRECTION = "correction"
    """The study says something else now than what was told."""
    WITHDRAWN = "withdrawn"
    """What was told does not hold, and nothing stands in its place: read the study."""
    CONDITION = "condition"
    """Of the node itself, for its operators: something needs a person."""
    RESOLVED = "resolved"
    """A condition has ended."""
    TEST = "test"


class AlertState(StrEnum):
    """Of one alert through one channel."""

    PENDING = "PENDING"
    SENDING = "SENDING"
    WAITING = "WAITING"
    """A later step: sent once nobody has acknowledged the steps before it in time."""
    SENT = "SENT"
    ACKNOWLEDGED = "ACKNOWLEDGED"
    UNANSWERED = "UNANSWERED"
    """Sent, and nobody acknowledged it before the list of steps ended."""
    SUPERSEDED = "SUPERSEDED"
    HELD = "HELD"
    """The node or the sender was not live."""
    DEAD = "DEAD"


@dataclass(frozen=True, slots=True)
class AlertChannel:
    """Where an alert goes: the name of a channel of the configuration."""

    name: str
    kind: ChannelKind


@dataclass(frozen=True, slots=True)
class AlertStep:
    """One step of telling: at once, or when nobody has acknowledged in time."""

    channel: AlertChannel
    after_s: float = 0.0
    """After the first step."""
    answer_within_s: float | None = None
    """How long an acknowledgement is waited for; None: none is asked for."""


@dataclass(frozen=True, slots=True)
class StudyAnswer:
    """What a study says now, and what the rules of alerts ask about it."""

    study_id: int
    revision: int
    outcome: str
    """``positive``, ``indeterminate``, ``negative``, ``not_analysed`` or ``withdrawn``."""
    probabilities: dict[str, float]
    present: tuple[str, ...]
    """Classes that are present."""
    station_name: str
    calling_ae_title: str
    remote_address: str
    acquired_at: float | None
    test_model: bool = False
    known_bleed: bool = False
    """This node reported hemorrhage for an earlier study of the patient; what is not known is none."""


@dataclass(frozen=True, slots=True)
class Alert:
    """One alert to send through one channel."""

    id: int
    identifier: str
    """Of every try of this alert: MSH-10, Idempotency-Key, Message-ID."""
    kind: AlertKind
    outcome: str
    """What the study says."""
    told_before: str
    """What a correction or withdrawal takes back; else empty."""
    channel: str
    step: int
    study_id: int | None
    """None where it is about the node itself."""
    revision: int
    source_file: str | None
    """The study's report, or an image before there is one, relative to the state folder: patient and study are read
    from it when the alert is sent."""
    attempts: int
    created_at: float
    probabilities: dict[str, float]
    presence: dict[str, str]
    study_instance_uid: str
    first_identifier: str = ""
    """Of the first alert of the study through this channel: what a correction is about, without naming a patient."""
    test_model: bool = False
    history: PatientHistory | None = None
    """None where it is about the node itself."""
    text: str = ""
    """Of a condition of the node itself."""
