"""HL7 v2.5.1 ORU^R01 over MLLP, answered by an ACK (HL7 v2.5.1 chapter 2.9, appendix C)."""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import hl7
from hl7.mllp import open_hl7_connection

from ich_node.alert.message import AlertMessage
from ich_node.alert.patience import ChannelPatience
from ich_node.alert.templates import HL7_TEMPLATE, render
from ich_node.errors import AlertRefused, ChannelUnavailable

_CHARACTER_SETS: Final = {"utf-8": "UNICODE UTF-8", "latin-1": "8859/1", "ascii": ""}
"""MSH-18 (HL7 table 0211)."""
_TAKEN: Final = ("AA", "CA")
_REJECTED: Final = ("AR", "CR")
_NO_ANSWER: Final = (OSError, EOFError, hl7.HL7Exception, hl7.mllp.InvalidBlockError, ValueError, UnicodeError)


@dataclass(frozen=True, slots=True)
class HL7Channel:
    """Tells a RIS, a worklist or an interface engine."""

    host: str
    port: int
    patience: ChannelPatience
    sending_application: str = "ICH_NODE"
    sending_facility: str = ""
    receiving_application: str = ""
    receiving_facility: str = ""
    processing_id: str = "P"
    encoding: str = "utf-8"
    template: Path | None = None

    def tell(self, message: AlertMessage) -> str:
        """Send one message and wait for its ACK.

        Returns:
            What the receiver answered.

        Raises:
            ChannelUnavailable: no connection, no answer in time, an answer to something else, or an application
                error (AE, CE), which may pass.
            AlertRefused: the receiver rejects it (AR, CR), or the template has a fault.
        """
        text = self.text(message)
        try:
            answer = asyncio.run(self._exchange(text))
        except TimeoutError:
            raise ChannelUnavailable("no connection or no ACK in time") from None
        except _NO_ANSWER as error:
            raise ChannelUnavailable(f"no ACK ({type(error).__name__})") from None
        return _judge(answer, message)

    def text(self, message: AlertMessage) -> str:
        """Give the message as it is sent: one segment to a line, which ends with a carriage return."""
        filled = render(self.template, HL7_TEMPLATE, "hl7", message, self.names)
        segments = [line.rstrip() for line in filled.splitlines() if line.strip()]
        return "\r".join(segments) + "\r"

    @property
    def names(self) -> dict[str, str]:
        """What a template may name of the channel."""
        return {
            "sending_application": self.sending_application,
            "sending_facility": self.sending_facility,
            "receiving_application": self.receiving_application,
            "receiving_facility": self.receiving_facility,
            "processing_id": self.processing_id,
            "character_set": _CHARACTER_SETS[self.encoding],
        }

    async def _exchange(self, text: str) -> hl7.Message:
        async with asyncio.timeout(self.patience.connect_s):
            reader, writer = await open_hl7_connection(self.host, self.port, encoding=self.encoding)
        try:
            async with asyncio.timeout(self.patience.response_s):
                writer.writeblock(text.encode(self.encoding, "replace"))
                await writer.drain()
                return await reader.readmessage()
        finally:
            writer.close()


def _judge(answer: hl7.Message, message: AlertMessage) -> str:
    try:
        acknowledgement = answer.segment("MSA")
        code, of = str(acknowledgement(1)), str(acknowledgement(2))
    except (KeyError, IndexError):
        raise ChannelUnavailable("the answer is no ACK") from None
    if of != message.identifier:
        raise ChannelUnavailable("the ACK is of another message")
    text = _text_of(acknowledgement, message)
    if code in _TAKEN:
        return f"ACK {code}{text}"
    if code in _REJECTED:
        raise AlertRefused(f"NAK {code}{text}")
    raise ChannelUnavailable(f"NAK {code}{text}")


def _text_of(acknowledgement: hl7.Segment, message: AlertMessage) -> str:
    """MSA-3, which some receivers fill; nothing of it is trusted to be short or clean.

    It may quote the patient: digits are not shown, and nothing of a text with a word of the patient's name or ID.
    """
    text = str(acknowledgement(3)) if len(acknowledgement) > 3 else ""
    name = message.patient_name
    whose = (name.family, name.given, name.middle, message.patient_id, message.accession_number)
    if _words(text) & _words(" ".join(whose)):
        return ": (its text names the patient and is not kept)"
    shown = "".join("#" if one.isdigit() else one for one in text if one.isprintable())[:80]
    return f": {shown}" if shown else ""


def _words(text: str) -> set[str]:
    return {word for word in re.split(r"[\W_]+", text.casefold()) if word}
