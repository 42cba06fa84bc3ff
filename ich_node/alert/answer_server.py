"""The MLLP listener for answers. A peer that sends nonsense, too much or too slowly is cut; it holds up nobody."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from hl7.mllp import HL7StreamReader, HL7StreamWriter, InvalidBlockError, start_hl7_server

from ich_node.alert.hl7_answer import HL7Answer, HL7Conversation, HL7Reply, read_answer
from ich_node.errors import AnswerNotUnderstood
from ich_node.log import EventLog

_LONGEST_MESSAGE: Final = 1024 * 1024
"""Bytes."""
_MOST_PEERS: Final = 32
_LOOK_S: Final = 0.1
_CUT: Final = (AnswerNotUnderstood, InvalidBlockError, ValueError, EOFError)

log = EventLog("answers")


@dataclass(slots=True)
class AnswerServer:
    """Reads messages, lets somebody decide about each, and answers it."""

    listening: socket.socket
    allows: Callable[[str], bool]
    """Whether a peer of this address may answer."""
    decide: Callable[[HL7Answer], HL7Reply]
    """May take its time: it runs in a thread."""
    idle_timeout_s: float
    _peers: int = field(default=0, init=False)

    def run(self, stop: threading.Event) -> None:
        """Listen until told to stop; connections that are open then are cut."""
        asyncio.run(self._run(stop))

    async def _run(self, stop: threading.Event) -> None:
        server = await start_hl7_server(
            self._talk_and_close,
            sock=self.listening,
            limit=_LONGEST_MESSAGE,
            encoding="utf-8",
            encoding_errors="replace",
        )
        try:
            while not stop.is_set():
                await asyncio.sleep(_LOOK_S)
        finally:
            server.close()

    async def _talk_and_close(self, reader: HL7StreamReader, writer: HL7StreamWriter) -> None:
        address = str((writer.get_extra_info("peername") or ("",))[0])
        if not address or not self.allows(address) or self._peers >= _MOST_PEERS:
            log.warning("answer refused: the address may not answer, or too many do", address=address)
            writer.transport.abort()
            return
        self._peers += 1
        try:
            while await self._exchange(reader, writer):
                pass
            writer.close()
        except _CUT as error:
            log.warning("connection of an answer is cut", address=address, why=type(error).__name__)
            writer.transport.abort()
        except TimeoutError:
            log.info("connection of an answer was silent and is ended", address=address)
            writer.transport.abort()
        except OSError:
            writer.transport.abort()  # the peer is gone
        finally:
            self._peers -= 1

    async def _exchange(self, reader: HL7StreamReader, writer: HL7StreamWriter) -> bool:
        """Take one message and answer it; False where the peer has ended in order."""
        async with asyncio.timeout(self.idle_timeout_s):
            try:
                block: bytes = await reader.readblock()
            except asyncio.IncompleteReadError as error:
                if error.partial:
                    raise
                return False
        conversation, reply = await asyncio.to_thread(self._answer, block.decode("utf-8", "replace"))
        if conversation.answer.wants_reply:
            writer.writemessage(conversation.reply(reply))
            async with asyncio.timeout(self.idle_timeout_s):
                await writer.drain()
        return True

    def _answer(self, text: str) -> tuple[HL7Conversation, HL7Reply]:
        conversation = read_answer(text)
        return conversation, self.decide(conversation.answer)
