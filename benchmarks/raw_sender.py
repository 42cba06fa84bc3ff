"""A sender that costs little: one association on a plain socket, objects as they are, the status of each read."""

from __future__ import annotations

import socket
import struct
from typing import Final, Self

from pynetdicom import build_context
from pynetdicom.pdu import A_ASSOCIATE_RQ
from pynetdicom.pdu_primitives import A_ASSOCIATE, ImplementationClassUIDNotification, MaximumLengthNotification

from ich_node import IMPLEMENTATION_CLASS_UID

_ACCEPTED, _DATA = 2, 4
_RELEASE: Final = struct.pack(">BBLL", 5, 0, 4, 0)
_CONTEXT_ITEM, _CONTEXT_ACCEPTED = 0x21, 0
_FRAGMENT: Final = 65_536
_TIMEOUT_S: Final = 120.0


class NotAccepted(OSError):
    """The association, or its presentation context, was refused."""

    def __init__(self) -> None:
        super().__init__("the association is not accepted")


class RawSender:
    """One association, for one class in one transfer syntax.

    Args:
        fragment: bytes of a PDU's value at most; some receivers end an association over longer ones than they named.

    Raises:
        NotAccepted: it is refused.
        OSError: it ends early, or an answer takes too long.
    """

    def __init__(
        self,
        port: int,
        sop_class_uid: str,
        transfer_syntax_uid: str,
        timeout_s: float = _TIMEOUT_S,
        fragment: int = _FRAGMENT,
    ) -> None:
        self._class, self._fragment = sop_class_uid, fragment
        self._connection = socket.create_connection(("127.0.0.1", port), timeout_s)
        self._connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            self._connection.sendall(association_request(sop_class_uid, transfer_syntax_uid))
            kind, body = self._read_pdu()
            if kind != _ACCEPTED or not _accepts_the_context(body):
                raise NotAccepted
        except OSError:
            self._connection.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        try:
            if error is None:
                self._connection.sendall(_RELEASE)
                self._read_pdu()
        finally:
            self._connection.close()

    def store(self, sop_instance_uid: str, encoded: bytes) -> int:
        """Send one object; give the status it was answered with."""
        self._send(3, _store_request(self._class, sop_instance_uid))
        for begin in range(0, len(encoded), self._fragment):
            last = begin + self._fragment >= len(encoded)
            self._send(2 if last else 0, encoded[begin : begin + self._fragment])
        kind, body = self._read_pdu()
        if kind != _DATA:
            raise OSError("the association was ended")
        at = body.index(struct.pack("<HHL", 0, 0x0900, 2)) + 8
        return int.from_bytes(body[at : at + 2], "little")

    def _send(self, control: int, value: bytes) -> None:
        length = len(value) + 2
        self._connection.sendall(struct.pack(">BBLLBB", _DATA, 0, length + 4, length, 1, control) + value)

    def _read_pdu(self) -> tuple[int, bytes]:
        kind, _, length = struct.unpack(">BBL", self._read(6))
        return kind, self._read(length)

    def _read(self, count: int) -> bytes:
        received = b""
        while len(received) < count:
            if not (piece := self._connection.recv(count - len(received))):
                raise OSError("the connection was closed")
            received += piece
        return received


def _accepts_the_context(body: bytes) -> bool:
    """Look at the result of the one presentation context in an A-ASSOCIATE-AC (PS3.8 9.3.3.2)."""
    at = 68
    while at + 4 <= len(body):
        kind, _, length = struct.unpack_from(">BBH", body, at)
        if kind == _CONTEXT_ITEM:
            return body[at + 6] == _CONTEXT_ACCEPTED
        at += 4 + length
    return False


def association_request(sop_class_uid: str, *transfer_syntax_uids: str) -> bytes:
    """Encode an A-ASSOCIATE-RQ with one presentation context."""
    primitive = A_ASSOCIATE()
    primitive.application_context_name = "1.2.840.10008.3.1.1.1"
    primitive.calling_ae_title, primitive.called_ae_title = "SCANNER1", "ICH_NODE"
    context = build_context(sop_class_uid, list(transfer_syntax_uids) or None)
    context.context_id = 1
    primitive.presentation_context_definition_list = [context]
    longest, implementation = MaximumLengthNotification(), ImplementationClassUIDNotification()
    longest.maximum_length_received = 16384
    implementation.implementation_class_uid = IMPLEMENTATION_CLASS_UID
    primitive.user_information = [longest, implementation]
    request = A_ASSOCIATE_RQ()
    request.from_primitive(primitive)
    return request.encode()


def _store_request(sop_class_uid: str, sop_instance_uid: str) -> bytes:
    """Encode the command set of a C-STORE request (PS3.7 9.3.1.1)."""
    elements = _uid(0x0002, sop_class_uid)
    for element, value in ((0x0100, 1), (0x0110, 1), (0x0700, 2), (0x0800, 0)):
        elements += struct.pack("<HHLH", 0, element, 2, value)
    elements += _uid(0x1000, sop_instance_uid)
    return struct.pack("<HHLL", 0, 0, 4, len(elements)) + elements


def _uid(element: int, uid: str) -> bytes:
    value = uid.encode(errors="surrogateescape")
    value += b"\0" * (len(value) % 2)
    return struct.pack("<HHL", 0, element, len(value)) + value
