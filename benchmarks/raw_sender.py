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
_FRAGMENT: Final = 65_536
_TIMEOUT_S: Final = 120.0


class RawSender:
    """One association, for one class in one transfer syntax.

    Raises:
        OSError: it is not accepted, or ends early.
    """

    def __init__(self, port: int, sop_class_uid: str, transfer_syntax_uid: str) -> None:
        self._class = sop_class_uid
        self._connection = socket.create_connection(("127.0.0.1", port), _TIMEOUT_S)
        self._connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._connection.sendall(association_request(sop_class_uid, transfer_syntax_uid))
        if self._read_pdu()[0] != _ACCEPTED:
            self._connection.close()
            raise OSError("the association is not accepted")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self._connection.sendall(_RELEASE)
            self._read_pdu()
        finally:
            self._connection.close()

    def store(self, sop_instance_uid: str, encoded: bytes) -> int:
        """Send one object; give the status it was answered with."""
        self._send(3, _store_request(self._class, sop_instance_uid))
        for begin in range(0, len(encoded), _FRAGMENT):
            last = begin + _FRAGMENT >= len(encoded)
            self._send(2 if last else 0, encoded[begin : begin + _FRAGMENT])
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
    value = uid.encode() + b"\0" * (len(uid) % 2)
    return struct.pack("<HHL", 0, element, len(value)) + value
