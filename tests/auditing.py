"""What tests ask of an audit trail: what was recorded, by the Standard's own rules and not by our own code."""

from __future__ import annotations

import base64
import re
from collections import Counter
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from lxml import etree

_CODE = "csd-code"
_SYSLOG = re.compile(
    rb"<(?P<priority>8[45])>1 (?P<time>[0-9-]{10}T[0-9:.]{15}Z) (?P<host>\S+) ich-node (?P<process>\S+) "
    rb"DICOM\+RFC3881 - \xef\xbb\xbf(?P<xml><AuditMessage>.*</AuditMessage>)",
    re.DOTALL,
)


@cache
def schema() -> etree.XMLSchema:
    return etree.XMLSchema(etree.parse(Path(__file__).with_name("audit_message.xsd")))


@dataclass
class Recorded:
    """One audit message, parsed."""

    root: etree._Element

    @property
    def event(self) -> str:
        return str(self.root.find("EventIdentification/EventID").get("originalText"))

    @property
    def types(self) -> list[str]:
        return [one.get("originalText") for one in self.root.findall("EventIdentification/EventTypeCode")]

    @property
    def action(self) -> str:
        return str(self.root.find("EventIdentification").get("EventActionCode"))

    @property
    def outcome(self) -> str:
        return str(self.root.find("EventIdentification").get("EventOutcomeIndicator"))

    @property
    def why(self) -> str:
        return str(self.root.findtext("EventIdentification/EventOutcomeDescription") or "")

    @property
    def patients(self) -> list[str]:
        return self._identifiers("2", "RFC-3881")

    @property
    def studies(self) -> list[str]:
        return self._identifiers("110180", "DCM")

    @property
    def counts(self) -> dict[str, int]:
        """Instances by SOP Class UID, of all studies."""
        counted = Counter[str]()
        for one in self.root.findall(".//SOPClass"):
            counted[one.get("UID")] += int(one.get("NumberOfInstances"))
        return dict(counted)

    @property
    def users(self) -> list[str]:
        return [one.get("UserID") for one in self.root.findall("ActiveParticipant")]

    def participant(self, role: str) -> dict[str, str]:
        """The attributes of the one participant of a role (CID 402)."""
        (one,) = self.root.xpath(f"ActiveParticipant[RoleIDCode[@csd-code='{role}']]")
        return dict(one.attrib)

    @property
    def details(self) -> dict[str, str]:
        found = self.root.findall(".//ParticipantObjectDetail")
        return {one.get("type"): base64.b64decode(one.get("value")).decode() for one in found}

    @property
    def things(self) -> list[str]:
        """Every participant object, whatever it is."""
        return [one.get("ParticipantObjectID") for one in self.root.findall("ParticipantObjectIdentification")]

    def _identifiers(self, code: str, scheme: str) -> list[str]:
        return [
            one.get("ParticipantObjectID")
            for one in self.root.findall("ParticipantObjectIdentification")
            if one.find("ParticipantObjectIDTypeCode").get(_CODE) == code
            and one.find("ParticipantObjectIDTypeCode").get("codeSystemName") == scheme
        ]


def parse(xml: bytes) -> Recorded:
    """Parse an audit message; one that breaks the schema, or names two patients, fails the test."""
    root = etree.fromstring(xml)
    schema().assertValid(root)
    recorded = Recorded(root)
    assert len(recorded.patients) <= 1
    return recorded


def xml_of_syslog(message: bytes) -> bytes:
    """Take an audit message out of a syslog message, and check that one."""
    fits = _SYSLOG.fullmatch(message)
    assert fits, message[:200]
    return fits["xml"]


def messages_in(state: Path) -> list[bytes]:
    """Every syslog message that the processes of a node recorded, file by file."""
    messages = []
    for path in sorted((state / "audit").glob("*.audit")):
        for line in path.read_bytes().splitlines()[1:]:
            _, length, message = line.split(b" ", 2)
            assert len(message) == int(length)
            messages.append(message)
    return messages


def recorded_in(state: Path, *events: str) -> list[Recorded]:
    """What was recorded, in the order of time; of some events only, where they are named."""
    messages = sorted(messages_in(state), key=lambda message: message.split(b" ", 2)[1])
    found = [parse(xml_of_syslog(message)) for message in messages]
    return [one for one in found if not events or one.event in events]
