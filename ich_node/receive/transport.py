"""The listening socket under pynetdicom 3.0.4, and how its connections are read.

pynetdicom makes an association of every connection, counts those that have not asked for one, does the TLS handshake in
the loop that accepts, reads PDUs of any length, and waits for the rest of one for ever. Here a connection becomes an
association when its A-ASSOCIATE-RQ has come whole and in time; no PDU is read that is longer than allowed, and each has
a deadline. Private names of pynetdicom are used: its version is pinned, and tests fail where they change.
"""

from __future__ import annotations

import socket
import ssl
import struct
import time
from socketserver import BaseServer
from typing import Any, Final, cast

from pynetdicom.association import Association
from pynetdicom.events import EVT_CONN_OPEN, trigger
from pynetdicom.pdu import A_ASSOCIATE_RQ
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]  # made at run time
from pynetdicom.transport import AssociationSocket, RequestHandler, ThreadedAssociationServer

from ich_node.log import EventLog
from ich_node.receive.admission import FOR_ECHO, Admission, Lobby, seconds_left, shut

LONGEST_PDU: Final = 1024 * 1024 + 1024
"""Bytes: beyond the largest maximum that can be configured."""
LONGEST_REQUEST: Final = 256 * 1024
"""Bytes of an A-ASSOCIATE-RQ; one with 128 contexts, each of 20 transfer syntaxes, has 100 KiB."""
REQUEST_S: Final = 5.0
"""From the connection until its request is here, TLS handshake included."""
PDU_S: Final = 8.0
"""From the first byte of a PDU to its last: 16 KiB a second at the usual 128 KiB."""
WAITING: Final = 128
"""Connections that have not asked yet."""

_HEADER_BYTES: Final = 6
_ASSOCIATE_RQ: Final = 0x01
_LOOK_S: Final = 1.0
"""Longest wait in one call to the system: deadlines are looked at in between."""
_FULL: Final = struct.pack(">BBLBBBB", 0x03, 0, 4, 0, 2, 3, 2)
"""A-ASSOCIATE-RJ: transient, by the provider (presentation), local limit exceeded (PS3.8 9.3.4)."""

log = EventLog("receive")


class Server(ThreadedAssociationServer):
    """A threaded server whose connections answer at once."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, *positional: Any, **named: Any) -> None:
        super().__init__(*positional, **named)
        self.lobby = Lobby(WAITING)
        self.admission = Admission(self.ae.maximum_associations)
        self.ae.maximum_associations += FOR_ECHO + WAITING  # ours is the limit: pynetdicom counts too late

    def get_request(self) -> tuple[socket.socket, tuple[str, int]]:
        """Accept a connection; without Nagle's algorithm, which holds each small response back for 40 ms."""
        connection, address = cast(socket.socket, self.socket).accept()
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        limit_timeouts(connection, self.ae.network_timeout)
        return connection, address

    def shutdown(self) -> None:
        """Stop listening. pynetdicom's own form expects a server that its AE started."""
        BaseServer.shutdown(self)
        self.server_close()


def limit_timeouts(connection: socket.socket, send_s: float | None) -> None:
    """Let no call to the system wait for long; in the system, not in Python, where it costs a second call per read."""
    for option, seconds in ((socket.SO_RCVTIMEO, _LOOK_S), (socket.SO_SNDTIMEO, send_s or 0.0)):
        connection.setsockopt(socket.SOL_SOCKET, option, struct.pack("ll", int(seconds), int(seconds % 1 * 1_000_000)))


class ConnectionHandler(RequestHandler):
    """Makes an association of a connection that asks for one; in a thread of its own."""

    server: Server
    request: socket.socket

    def handle(self) -> None:
        """Read the request in time; begin the association, or refuse it."""
        deadline = time.monotonic() + min(REQUEST_S, self.server.ae.network_timeout or REQUEST_S)
        address = str(self.client_address[0])
        if (context := self.server.ssl_context) is not None:
            self.request = context.wrap_socket(self.request, server_side=True, do_handshake_on_connect=False)
        self.server.lobby.enter(self.request, address)
        try:
            if isinstance(self.request, ssl.SSLSocket):
                _shake_hands(self.request, deadline)
            asked = _read_request(self.request, deadline)
        except (OSError, ValueError) as error:
            say = log.info if isinstance(error, ConnectionError) else log.warning
            say("connection closed: it asked for no association", address=address, why=str(error))
            self.server.shutdown_request(self.request)
            return
        finally:
            self.server.lobby.leave(self.request)
        if not self.server.admission.admit(lambda: self._begin(asked), echo_alone=_is_echo_alone(asked)):
            log.warning("association refused: all are in use", address=address)
            self._refuse()

    def _begin(self, asked: bytes) -> AssociationOfOurs:
        association = self._create_association()
        reading = WholeReads.of(association, asked)
        trigger(association, EVT_CONN_OPEN, {"address": self.client_address})
        association.start()
        return AssociationOfOurs(association, reading)

    def _refuse(self) -> None:
        """Send the rejection, and wait a moment for the peer to have read it."""
        try:
            self.request.sendall(_FULL)
            socket.socket.shutdown(self.request, socket.SHUT_WR)
            self.request.recv(1)
        except OSError:
            pass  # it did not wait for the answer
        self.server.shutdown_request(self.request)


class AssociationOfOurs:
    """What the admission asks of an association."""

    def __init__(self, association: Association, reading: WholeReads) -> None:
        self._association = association
        self._reading = reading

    def is_alive(self) -> bool:
        """Say whether it goes on."""
        return self._association.is_alive()

    def stalled_s(self) -> float:
        """Say for how long it has been in the middle of a PDU; 0 between two."""
        begun = self._reading.pdu_begun_at
        return 0.0 if begun is None else time.monotonic() - begun

    def cut(self) -> None:
        """Close the connection under it."""
        if (connection := self._reading.socket) is not None:
            shut(connection)


class WholeReads(AssociationSocket):
    """Reads a PDU with one call to the system where pynetdicom makes one for every 4 KiB, and in time.

    After each call a thread queues for the interpreter; with several associations that took most of the time.
    """

    _ahead: bytearray
    """What was read before there was an association."""
    pdu_begun_at: float | None
    """On the monotonic clock; None between two PDUs."""
    _announced: int

    @classmethod
    def of(cls, association: Association, ahead: bytes) -> WholeReads:
        """Change the socket of an association: pynetdicom has no hook for its class, and a second one would be
        announced twice."""
        reading = association.dul.socket
        reading.__class__ = cls
        ours = cast(WholeReads, reading)
        ours._ahead, ours.pdu_begun_at, ours._announced = bytearray(ahead), None, 0
        return ours

    @property
    def ready(self) -> bool:
        """Say whether there is something to read."""
        return bool(self._ahead) or bool(AssociationSocket.ready.fget(self))  # type: ignore[attr-defined]

    def recv(self, nr_bytes: int) -> bytearray:
        """Read ``nr_bytes``, a PDU's header or its rest; fewer where the connection ends before.

        Raises:
            OSError: the peer announced more than any PDU holds, or was too slow with one.
        """
        if nr_bytes > LONGEST_PDU:
            raise OSError("the announced PDU is longer than allowed")
        if self.pdu_begun_at is None:
            self.pdu_begun_at, is_rest = time.monotonic(), False
        else:
            is_rest = True
        deadline = self.pdu_begun_at + min(PDU_S, self.assoc.network_timeout or PDU_S)
        received, self._ahead = self._ahead[:nr_bytes], self._ahead[nr_bytes:]
        if len(received) < nr_bytes:
            received += read_whole(cast(socket.socket, self.socket), nr_bytes - len(received), deadline)
        if is_rest or len(received) < nr_bytes or not any(received[2:]):  # a PDU may be a header alone
            self.pdu_begun_at = None
        return received


def read_whole(connection: socket.socket, nr_bytes: int, deadline: float) -> bytearray:
    """Read so many bytes; fewer where the connection ends before.

    Args:
        deadline: on the monotonic clock.

    Raises:
        TimeoutError: they did not come in time.
        OSError: the connection broke.
    """
    flags = 0 if isinstance(connection, ssl.SSLSocket) else socket.MSG_WAITALL
    received = bytearray(nr_bytes)
    count = 0
    with memoryview(received) as view:
        while count < nr_bytes:
            try:
                new = connection.recv_into(view[count:], nr_bytes - count, flags)
            except (BlockingIOError, TimeoutError):  # nothing for a while
                new = None
            if new == 0:
                break
            count += new or 0
            if count < nr_bytes:
                seconds_left(deadline)
    del received[count:]
    return received


def _shake_hands(connection: ssl.SSLSocket, deadline: float) -> None:
    """Do the TLS handshake in time; a peer that sends a byte now and then gets no more of it."""
    while True:
        connection.settimeout(min(_LOOK_S, seconds_left(deadline)))
        try:
            connection.do_handshake()
        except TimeoutError:
            continue
        connection.settimeout(_LOOK_S)
        return


def _read_request(connection: socket.socket, deadline: float) -> bytes:
    """Read an A-ASSOCIATE-RQ.

    Raises:
        ValueError: it is none, or too long.
        OSError: it did not come whole, or not in time.
    """
    header = read_whole(connection, _HEADER_BYTES, deadline)
    if len(header) < _HEADER_BYTES:
        raise ConnectionError("closed by the peer")
    kind, _, length = struct.unpack(">BBL", header)
    if kind != _ASSOCIATE_RQ:
        raise ValueError("what came first is no A-ASSOCIATE-RQ")
    if length > LONGEST_REQUEST:
        raise ValueError("its request is longer than any")
    rest = read_whole(connection, length, deadline)
    if len(rest) < length:
        raise ConnectionError("closed by the peer in the middle of its request")
    return bytes(header + rest)


def _is_echo_alone(request: bytes) -> bool:
    """Say whether a request proposes Verification and nothing else."""
    asked = A_ASSOCIATE_RQ()
    try:
        asked.decode(request)
        proposed = {str(one.abstract_syntax) for one in asked.presentation_context}
    except Exception:  # noqa: BLE001 - whatever cannot be read, and however pynetdicom says so, is no C-ECHO
        return False
    return proposed == {str(Verification)}
