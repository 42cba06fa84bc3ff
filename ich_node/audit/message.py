"""An audit message as XML (PS3.15 A.5.1): what happened, who took part, and to what it happened."""

from __future__ import annotations

import ipaddress
import re
from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Final
from xml.etree.ElementTree import Element, SubElement, tostring

from ich_node.audit.codes import PATIENT_NUMBER, SOP_CLASS_UID, STUDY_INSTANCE_UID, URI, Code

NONE: Final = "(none)"
"""Stands where an identifier must be and there is none."""
_LONGEST: Final = 1024
_UNPRINTABLE: Final = re.compile(r"[^\x20-\x7e\xa0-\u2027\u202f-\u2065\u206a-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""What XML 1.0 forbids, every control character and line break, and what turns the direction of writing."""


class Outcome(StrEnum):
    """EventOutcomeIndicator."""

    SUCCESS = "0"
    MINOR = "4"
    """Failed, and will be tried again."""
    SERIOUS = "8"
    MAJOR = "12"


class Action(StrEnum):
    """EventActionCode."""

    CREATE = "C"
    READ = "R"
    UPDATE = "U"
    DELETE = "D"
    EXECUTE = "E"


@dataclass(frozen=True, slots=True)
class Participant:
    """Somebody who took part: a person, a process or a node (PS3.15 A.5.2.1)."""

    user_id: str
    is_requestor: bool = False
    alternative_user_id: str = ""
    role: Code | None = None
    address: str = ""
    """IP address, host name, mail address or URI."""
    media: Code | None = None


@dataclass(frozen=True, slots=True)
class Subject:
    """Whose study it was."""

    patient_id: str = field(repr=False)
    study_instance_uid: str


@dataclass(frozen=True, slots=True)
class Thing:
    """Something that it happened to: a ParticipantObjectIdentification."""

    identifier: str = field(repr=False)
    kind: Code
    object_type: str = "2"
    role: str = ""
    name: str = ""
    query: bytes | None = field(default=None, repr=False)
    details: tuple[tuple[str, str], ...] = ()
    sop_classes: Mapping[str, int] = field(default_factory=dict)
    """Number of instances by SOP Class UID."""
    contains_studies: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class AuditMessage:
    """What is recorded of one event."""

    event: Code
    action: Action
    participants: tuple[Participant, ...]
    things: tuple[Thing, ...] = ()
    types: tuple[Code, ...] = ()
    outcome: Outcome = Outcome.SUCCESS
    why: str = ""

    def to_xml(self, source_id: str, at: float) -> bytes:
        """Write the message on one line, in UTF-8.

        Args:
            source_id: AuditSourceID.
            at: when it happened, seconds since 1970.
        """
        root = Element("AuditMessage")
        self._add_event(root, at)
        for participant in self.participants:
            _add_participant(root, participant)
        source = SubElement(root, "AuditSourceIdentification", {"AuditSourceID": _clean(source_id)})
        SubElement(source, "AuditSourceTypeCode", {"csd-code": "4"})  # application server process
        for thing in self.things:
            _add_thing(root, thing)
        return bytes(tostring(root, "utf-8", xml_declaration=False))

    def _add_event(self, root: Element, at: float) -> None:
        attributes = {
            "EventActionCode": self.action.value,
            "EventDateTime": utc(at),
            "EventOutcomeIndicator": self.outcome.value,
        }
        event = SubElement(root, "EventIdentification", attributes)
        _add_code(event, "EventID", self.event)
        for one in self.types:
            _add_code(event, "EventTypeCode", one)
        if self.why:
            SubElement(event, "EventOutcomeDescription").text = _clean(self.why)


def patient(patient_id: str) -> Thing:
    """Name a patient by number. The name of the patient is left empty: the number is enough to find whose it was."""
    return Thing(patient_id or NONE, PATIENT_NUMBER, object_type="1", role="1")


def study(
    study_instance_uid: str, sop_classes: Mapping[str, int] | None = None, details: tuple[tuple[str, str], ...] = ()
) -> Thing:
    """Name a study, and how many of its instances of each SOP Class it was about."""
    uid = study_instance_uid or NONE
    return Thing(uid, STUDY_INSTANCE_UID, role="3", sop_classes=sop_classes or {}, details=details)


def dicom_query(sop_class_uid: str, identifier: bytes, transfer_syntax_uid: str) -> Thing:
    """Hold a C-FIND identifier as it was sent (PS3.15 A.5.3.10)."""
    details = (("TransferSyntax", transfer_syntax_uid),)
    return Thing(sop_class_uid, SOP_CLASS_UID, role="3", query=identifier, details=details)


def resource(uri: str, role: str = "13", name: str = "", **more: str) -> Thing:
    """Name a file, command or other resource by its URI; further words become details."""
    return Thing(uri, URI, role=role, name=name, details=tuple(more.items()))


def utc(at: float) -> str:
    """Write a time as xsd:dateTime and RFC 5424 do, in UTC with microseconds."""
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _add_participant(root: Element, one: Participant) -> None:
    attributes = {"UserID": _clean(one.user_id) or NONE, "UserIsRequestor": str(one.is_requestor).lower()}
    if one.alternative_user_id:
        attributes["AlternativeUserID"] = _clean(one.alternative_user_id)
    if one.address:
        attributes |= {
            "NetworkAccessPointID": _clean(one.address),
            "NetworkAccessPointTypeCode": _kind_of_address(one.address),
        }
    element = SubElement(root, "ActiveParticipant", attributes)
    if one.role is not None:
        _add_code(element, "RoleIDCode", one.role)
    if one.media is not None:
        _add_code(SubElement(element, "MediaIdentifier"), "MediaType", one.media)


def _add_thing(root: Element, thing: Thing) -> None:
    attributes = {"ParticipantObjectID": _clean(thing.identifier), "ParticipantObjectTypeCode": thing.object_type}
    if thing.role:
        attributes["ParticipantObjectTypeCodeRole"] = thing.role
    element = SubElement(root, "ParticipantObjectIdentification", attributes)
    _add_code(element, "ParticipantObjectIDTypeCode", thing.kind)
    if thing.query is None:  # the schema wants one of the two
        SubElement(element, "ParticipantObjectName").text = _clean(thing.name)
    else:
        SubElement(element, "ParticipantObjectQuery").text = b64encode(thing.query).decode()
    for kind, value in thing.details:
        encoded = b64encode(value[:_LONGEST].encode("utf-8", "replace")).decode()
        SubElement(element, "ParticipantObjectDetail", {"type": _clean(kind), "value": encoded})
    if thing.sop_classes or thing.contains_studies:
        description = SubElement(element, "ParticipantObjectDescription")
        for uid, count in sorted(thing.sop_classes.items()):
            SubElement(description, "SOPClass", {"UID": _clean(uid), "NumberOfInstances": str(count)})
        if thing.contains_studies:
            contains = SubElement(description, "ParticipantObjectContainsStudy")
            for uid in thing.contains_studies:
                SubElement(contains, "StudyIDs", {"UID": _clean(uid)})


def _add_code(parent: Element, name: str, code: Code) -> None:
    attributes = {"csd-code": code.value, "codeSystemName": code.scheme, "originalText": code.meaning}
    SubElement(parent, name, attributes)


def _kind_of_address(address: str) -> str:
    """Give the NetworkAccessPointTypeCode."""
    if "://" in address:
        return "5"
    if "@" in address:
        return "4"
    try:
        ipaddress.ip_address(address)
    except ValueError:
        return "1"
    return "2"


def _clean(text: str) -> str:
    return _UNPRINTABLE.sub("\ufffd", text[:_LONGEST]).strip()
