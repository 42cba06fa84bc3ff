"""Inbound HL7 v2 messages that answer an alert: what they name, who answers, and what they get back."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, Literal

import hl7

from ich_node.errors import AnswerNotUnderstood

_ACCEPTS: Final = ("AA", "CA")
_ACKNOWLEDGEMENTS: Final = ("ACK", "MCF")
"""Message types that nobody answers (HL7 v2.5.1 2.9.2), unless they ask for it in MSH-15."""
_READ: Final = ("MSH", "MSA", "ORC", "OBR")
_LONGEST_SEGMENT: Final = 4096
"""Characters."""
_ALWAYS: Final = "AL"
_ODD_MESSAGES: Final = (hl7.HL7Exception, LookupError, ValueError, TypeError, AttributeError, AssertionError)
"""What the parser raises for messages with a fault of form."""


@dataclass(frozen=True, slots=True)
class HL7Answer:
    """What an inbound message says about an alert."""

    identifier: str
    """Of the alert, which is the MSH-10 of our message; empty where the message names none."""
    code: str
    """MSA-1; empty where there is no MSA segment, but an order that names the alert."""
    by: str
    """Sending application and facility, behind the person in ORC-19 where one is named."""
    wants_reply: bool

    @property
    def accepts(self) -> bool:
        """It acknowledges the alert; AE, AR, CE and CR say that something went wrong with it."""
        return self.code in _ACCEPTS or not self.code


@dataclass(frozen=True, slots=True)
class HL7Reply:
    """What is said back."""

    code: Literal["AA", "AE"]
    text: str


@dataclass(frozen=True, slots=True)
class HL7Conversation:
    """One inbound message, understood."""

    answer: HL7Answer
    acknowledgement: hl7.Message

    def reply(self, reply: HL7Reply) -> hl7.Message:
        """Give the ACK to send."""
        said = self.acknowledgement.segment("MSA")
        said.assign_field(reply.code, 1)
        said.assign_field(reply.text, 3)
        return self.acknowledgement


def read_answer(text: str) -> HL7Conversation:
    """Read a message: MSA-2 names the alert, or where there is no MSA segment the first component of OBR-3.

    Raises:
        AnswerNotUnderstood: it is no HL7 v2 message.
    """
    try:
        message = hl7.parse(_with_trigger_event(_segments_read(text)))
        kind = str(message["MSH.F9.R1.C1"])
        answer = HL7Answer(
            identifier=_value(message, "MSA.F2") or _value(message, "OBR.F3.R1.C1"),
            code=_value(message, "MSA.F1"),
            by=_who(message),
            wants_reply=kind not in _ACKNOWLEDGEMENTS or _value(message, "MSH.F15") == _ALWAYS,
        )
        return HL7Conversation(answer, _acknowledgement(message))
    except _ODD_MESSAGES as error:
        raise AnswerNotUnderstood(type(error).__name__) from None


def _segments_read(text: str) -> str:
    """Keep the first of each segment that is read: the rest of a long message would keep the parser busy."""
    found: dict[str, str] = {}
    for line in text.split("\r"):
        segment = line.lstrip("\n")
        if segment[:3] in _READ:
            found.setdefault(segment[:3], segment)
    if not text.startswith("MSH") or max(map(len, found.values())) > _LONGEST_SEGMENT:
        raise AnswerNotUnderstood("no MSH at its begin, or a segment too long")
    return "".join(f"{segment}\r" for segment in found.values())


def _with_trigger_event(text: str) -> str:
    """Give MSH-9 its second component, be it empty: the library copies it into an ACK, and old messages have none."""
    header, end_of_segment, rest = text.partition("\r")
    fields = header.split(header[3:4] or "|")
    if len(fields) > 8 and header[4:5] not in fields[8]:
        fields[8] += header[4:5]
    return header[3:4].join(fields) + end_of_segment + rest


def _value(message: hl7.Message, place: str) -> str:
    """Read a value, unescaped and stripped; empty where the message has no such place."""
    try:
        return str(message[place]).strip()
    except LookupError:
        return ""


def _who(message: hl7.Message) -> str:
    system = " ".join(filter(None, (_value(message, "MSH.F3.R1.C1"), _value(message, "MSH.F4.R1.C1")))) or "HL7"
    names = (_value(message, "ORC.F19.R1.C3"), _value(message, "ORC.F19.R1.C2"))  # XCN: given name, family name
    person = " ".join(filter(None, names)) or _value(message, "ORC.F19.R1.C1")
    who = f"{person} ({system})" if person else system
    return " ".join("".join(one if one.isprintable() else " " for one in who).split())[:64]


def _acknowledgement(message: hl7.Message) -> hl7.Message:
    acknowledgement = message.create_ack("AA")
    acknowledgement.segment("MSH").assign_field(f"{datetime.now(UTC):%Y%m%d%H%M%S}+0000", 7)
    return acknowledgement
