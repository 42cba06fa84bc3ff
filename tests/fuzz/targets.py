"""What is fuzzed in one process: each takes bytes, and lets nothing through but what its module says it raises."""

from __future__ import annotations

import queue
import socket
import struct
import tempfile
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final, cast

from ich_node.alert.hl7_answer import read_answer
from ich_node.decode import DecodeLimits, read_facts
from ich_node.decode.file import damage_means
from ich_node.decode.frames import open_frames, read_header_and_end
from ich_node.decode.limits import check_image
from ich_node.errors import AnswerNotUnderstood, SeriesNotAnalysed
from ich_node.receive import transport
from ich_node.receive.association_request import read_association_request
from ich_node.receive.data_set import identify
from ich_node.receive.incoming import AnswerableMessages, BoundedMessages
from ich_node.receive.spool import split_file
from ich_node.receive.statuses import RefusedDataSet
from ich_node.receive.store_request import ReceivedValues
from ich_node.records import NotAnalysedReason
from tests.fuzz.seeds import SYNTAXES

_LIMITS: Final = DecodeLimits(max_inflated_bytes=1024 * 1024)
_MOST: Final = 60_000
"""Bytes of a stream: what a pair of sockets takes without a reader."""


def association_request(data: bytes) -> None:
    with suppress(ValueError):
        read_association_request(data)


def data_set(data: bytes) -> None:
    if data:
        with suppress(RefusedDataSet):
            identify(data[1:], SYNTAXES[data[0] % len(SYNTAXES)])


def header(data: bytes) -> None:
    """Facts and first frame of a file, as far as pydicom goes; the codecs run in children only."""
    with tempfile.NamedTemporaryFile(dir=_fast_folder(), suffix=".dcm") as file:
        Path(file.name).write_bytes(data)
        with suppress(SeriesNotAnalysed):
            read_facts(Path(file.name), _LIMITS)
            found, at = read_header_and_end(Path(file.name), _LIMITS)
            with damage_means(NotAnalysedReason.CANNOT_DECODE):
                check_image(found, _LIMITS)
                with open_frames(Path(file.name), found, at) as source:
                    source.frame(0)


def _fast_folder() -> str | None:
    return "/dev/shm" if Path("/dev/shm").is_dir() else None


def spool(data: bytes) -> None:
    with suppress(RefusedDataSet):
        split_file(data)


def hl7_answer(data: bytes) -> None:
    with suppress(AnswerNotUnderstood):
        read_answer(data.decode("utf-8", "replace"))


def pdu_stream(data: bytes) -> int:
    """A connection that sends a request's beginning or more, then P-DATA, and ends; the messages that came whole."""
    ours, theirs = socket.socketpair()
    with closing(ours), closing(theirs):
        theirs.sendall(data[:_MOST])
        theirs.shutdown(socket.SHUT_WR)
        return read_pdus(ours)


def read_pdus(connection: socket.socket) -> int:
    """Read PDUs and put messages together, as an association of the receiver does; give how many."""
    whole = 0
    reading = object.__new__(transport.WholeReads)
    ended: queue.Queue[str] = queue.Queue()
    requestor = SimpleNamespace(address="127.0.0.1")
    association = SimpleNamespace(network_timeout=5.0, requestor=requestor, get_handlers=lambda _: None)
    messages = _messages(association, ended)
    association.dimse = messages
    reading._assoc, reading.socket = cast(Any, association), connection
    transport.WholeReads.begin(reading, b"", 1024 * 1024)
    with suppress(OSError, struct.error):
        while ended.empty():
            head = reading.recv(6)
            kind, _, length = struct.unpack(">BBL", head)
            rest = reading.recv(length)
            if len(rest) < length:
                return whole
            if kind == 4:
                _receive(messages, head + rest)
            while not messages.msg_queue.empty():
                messages.msg_queue.get_nowait()
                whole += 1
    return whole


def _messages(association: Any, ended: queue.Queue[str]) -> BoundedMessages:
    messages = object.__new__(BoundedMessages)
    messages._assoc = association
    messages._folder, messages._reserve_bytes, messages._request = Path(tempfile.gettempdir()), 0, None
    messages.msg_queue, messages.message, messages.cancel_req = AnswerableMessages(), None, {}
    association.dul = SimpleNamespace(event_queue=ended)
    return messages


def _receive(messages: BoundedMessages, encoded: bytearray) -> None:
    try:
        primitive = ReceivedValues(encoded).to_primitive()
    except ValueError:
        return
    messages.receive_primitive(primitive)


TARGETS: Final[dict[str, Callable[[bytes], object]]] = {
    "association_request": association_request,
    "data_set": data_set,
    "header": header,
    "spool": spool,
    "hl7_answer": hl7_answer,
    "transport": pdu_stream,
}
