"""PDUs and DIMSE messages as bytes, by the rules of PS3.7 and PS3.8 and not by a toolkit's code: they may be wrong."""

from __future__ import annotations

import socket
import struct
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from pydicom.uid import ExplicitVRLittleEndian

CT: Final = "1.2.840.10008.5.1.4.1.1.2"
VERIFICATION: Final = "1.2.840.10008.1.1"
IMPLICIT: Final = "1.2.840.10008.1.2"
ASSOCIATE_RQ, ASSOCIATE_AC, ASSOCIATE_RJ, P_DATA, RELEASE_RQ, RELEASE_RP, ABORT = range(1, 8)
COMMAND, LAST = 1, 2
C_STORE_RQ, C_ECHO_RQ = 0x0001, 0x0030
NO_DATA_SET: Final = 0x0101


def pdu(kind: int, content: bytes, length: int | None = None) -> bytes:
    """A PDU (PS3.8 9.3.1)."""
    return struct.pack(">BBL", kind, 0, len(content) if length is None else length) + content


def item(kind: int, content: bytes) -> bytes:
    """An item of an A-ASSOCIATE-RQ."""
    return struct.pack(">BBH", kind, 0, len(content) & 0xFFFF) + content


def associate_rq(*contexts: tuple[str, str], calling: bytes = b"FUZZER", called: bytes = b"ICH_NODE") -> bytes:
    """An A-ASSOCIATE-RQ that proposes (class, transfer syntax), context IDs 1, 3, 5 ..."""
    fixed = struct.pack(">HH16s16s32x", 1, 0, called.ljust(16), calling.ljust(16))
    body = item(0x10, b"1.2.840.10008.3.1.1.1")
    for number, (uid, syntax) in enumerate(contexts):
        head = struct.pack(">BBBB", (2 * number + 1) % 256, 0, 0, 0)
        body += item(0x20, head + item(0x30, uid.encode()) + item(0x40, syntax.encode()))
    return pdu(ASSOCIATE_RQ, fixed + body + item(0x50, item(0x51, struct.pack(">L", 16384)) + item(0x52, b"1.2.3")))


def p_data(*values: tuple[int, int, bytes]) -> bytes:
    """A P-DATA-TF of (context ID, control header, fragment)."""
    return pdu(P_DATA, b"".join(value(*one) for one in values))


def value(context: int, control: int, fragment: bytes) -> bytes:
    """A presentation data value (PS3.8 9.3.5)."""
    return struct.pack(">LBB", len(fragment) + 2, context, control) + fragment


def command_set(*elements: tuple[int, bytes]) -> bytes:
    """A command set in Implicit VR Little Endian (PS3.7 6.3.1), with its group length."""
    body = b"".join(struct.pack("<HHL", 0, number, len(content)) + content for number, content in elements)
    return struct.pack("<HHLL", 0, 0, 4, len(body)) + body


def us(number: int) -> bytes:
    return struct.pack("<H", number)


def ui(uid: bytes) -> bytes:
    return uid + b"\0" * (len(uid) % 2)


def store_command(instance_uid: bytes, class_uid: bytes = CT.encode(), message: int = 1) -> bytes:
    """A C-STORE-RQ (PS3.7 9.3.1.1)."""
    return command_set(
        (0x0002, ui(class_uid)), (0x0100, us(C_STORE_RQ)), (0x0110, us(message)), (0x0700, us(2)),
        (0x0800, us(1)), (0x1000, ui(instance_uid)),
    )  # fmt: skip


def echo_command(message: int = 1) -> bytes:
    """A C-ECHO-RQ (PS3.7 9.3.5.1)."""
    return command_set(
        (0x0002, ui(VERIFICATION.encode())), (0x0100, us(C_ECHO_RQ)), (0x0110, us(message)), (0x0800, us(NO_DATA_SET))
    )


def store_pdus(content: bytes, instance_uid: bytes, fragment: int = 16000, context: int = 1) -> list[bytes]:
    """A whole C-STORE-RQ as PDUs."""
    pieces = [content[at : at + fragment] for at in range(0, len(content), fragment)] or [b""]
    data = [p_data((context, 0, piece)) for piece in pieces[:-1]] + [p_data((context, LAST, pieces[-1]))]
    return [p_data((context, COMMAND | LAST, store_command(instance_uid))), *data]


@dataclass
class Peer:
    """One connection."""

    connection: socket.socket

    @classmethod
    def connect(cls, port: int, address: str = "127.0.0.1", timeout_s: float = 30.0) -> Peer:
        return cls(socket.create_connection(("127.0.0.1", port), timeout_s, (address, 0)))

    @classmethod
    def associated(cls, port: int, address: str = "127.0.0.1", *contexts: tuple[str, str]) -> Peer:
        """Connect and have an association accepted."""
        peer = cls.connect(port, address)
        peer.send(associate_rq(*(contexts or ((CT, str(ExplicitVRLittleEndian)),))))
        kind, _ = peer.receive()
        assert kind == ASSOCIATE_AC, f"PDU {kind} for an answer"
        return peer

    def send(self, content: bytes) -> None:
        self.connection.sendall(content)

    def receive(self) -> tuple[int, bytes]:
        """Give kind and content of the next PDU; kind 0 where the connection has ended."""
        head = self._exactly(6)
        if len(head) < 6:
            return 0, b""
        kind, _, length = struct.unpack(">BBL", head)
        return kind, self._exactly(length)

    def status(self) -> int | None:
        """Give the status of the next response (0000,0900); None where the connection ended instead."""
        kind, content = self.receive()
        if kind != P_DATA:
            return None
        at = content.find(struct.pack("<HHL", 0, 0x0900, 2))
        return None if at < 0 else int(struct.unpack_from("<H", content, at + 8)[0])

    def statuses(self) -> list[int]:
        """Give the statuses of all responses until the other side has nothing more to say."""
        found = []
        with suppress(OSError):
            while (kind_and_content := self.receive())[0]:
                at = kind_and_content[1].find(struct.pack("<HHL", 0, 0x0900, 2))
                if kind_and_content[0] == P_DATA and at >= 0:
                    found.append(int(struct.unpack_from("<H", kind_and_content[1], at + 8)[0]))
        return found

    def reset(self) -> None:
        """End with RST."""
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()

    def close(self) -> None:
        self.connection.close()

    def _exactly(self, count: int) -> bytes:
        received = bytearray()
        while len(received) < count and (piece := self.connection.recv(count - len(received))):
            received += piece
        return bytes(received)


def echo(port: int, address: str = "127.0.0.200", timeout_s: float = 30.0) -> int | None:
    """Send a C-ECHO from an address; give its status, None where there was none."""
    peer = None
    try:
        peer = Peer.connect(port, address, timeout_s)
        peer.send(associate_rq((VERIFICATION, IMPLICIT)))
        if peer.receive()[0] != ASSOCIATE_AC:
            return None
        peer.send(p_data((1, COMMAND | LAST, echo_command())))
        status = peer.status()
        peer.send(pdu(RELEASE_RQ, bytes(4)))
        peer.receive()
        return status
    except OSError:
        return None
    finally:
        if peer is not None:
            peer.close()
