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
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from socketserver import BaseServer
from typing import Any, Final, cast

from pynetdicom.association import Association
from pynetdicom.events import EVT_CONN_OPEN, trigger
from pynetdicom.transport import AssociationSocket, RequestHandler, ThreadedAssociationServer

from ich_node.log import EventLog
from ich_node.receive.admission import FOR_ECHO, Admission, Lobby, seconds_left, shut
from ich_node.receive.association_request import AssociationRequest, read_association_request
from ich_node.receive.incoming import LONGEST_COMMAND, MOST_WAITING, AnswerableMessages, BoundedMessages, GuardedReactor
from ich_node.receive.places import Loads, Places
from ich_node.receive.repeats import Repeats
from ich_node.receive.store_response import answer_stores_at_once
from ich_node.receive.waiting import Alarm, wait_instead_of_looking
from ich_node.records import PeerCertificate
from ich_node.tls import peer_certificate, reason

LONGEST_PDU: Final = 1024 * 1024 + 1024
"""Bytes: beyond the largest maximum that can be configured."""
LONGEST_REQUEST: Final = 256 * 1024
"""Bytes of an A-ASSOCIATE-RQ; one with 128 contexts, each of 20 transfer syntaxes, has 100 KiB."""
REQUEST_S: Final = 5.0
"""From the connection until its request is here, TLS handshake included."""
PDU_S: Final = 8.0
"""Without a byte in the middle of a PDU; and after it, each must have come at SLOWEST or faster."""
SLOWEST: Final = 4096.0
"""Bytes a second, of a PDU that takes longer than PDU_S."""
MOST_VALUES: Final = 2000
"""Presentation data values in one PDU: pynetdicom takes 15 us for each."""
WAITING: Final = 128
"""Connections that have not asked yet."""

_HEADER_BYTES: Final = 6
_ASSOCIATE_RQ: Final = 0x01
_P_DATA: Final = 0x04
_LOOK_S: Final = 1.0
"""Longest wait in one call to the system: deadlines are looked at in between."""
_FAREWELLS: Final = 32
_FAREWELL_S: Final = 2.0
_FEWEST_FOR_ECHO: Final = 2
_COURTESY_S: Final = 0.003
"""That a process lets one with fewer connections go first."""
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
        self.knows: Callable[[AssociationRequest, str, PeerCertificate | None], bool] = lambda *_: True
        """Whether a request from an address, with a certificate that was verified, will be accepted."""
        self.refused: Callable[[str, str], None] = lambda _address, _why: None
        """Is told who was not let in, and why, for the audit trail."""
        self.tls: Callable[[], ssl.SSLContext] | None = None
        """Gives what new connections are wrapped with; None: this port is plain DICOM."""
        self.longest_object = sys.maxsize
        """Bytes of one data set; who sends more is cut."""
        self.incoming: tuple[Path, int] = Path(tempfile.gettempdir()), 0
        """Where long objects are kept while they come, and how many bytes of that disk stay free."""
        self.repeats = Repeats()
        self.farewells = threading.BoundedSemaphore(_FAREWELLS)
        self.number = 0
        """Of this process among those that accept the same connections."""
        self.loads = Loads(1)
        self.went_round_at = time.monotonic()
        """When the loop that accepts was last seen."""

    def divide(self, processes: int, most: int) -> None:
        """Prepare to be served by so many processes: one count of associations, and for each a part of the rest.

        Args:
            most: associations at once, in all.
        """
        cast(socket.socket, self.socket).setblocking(False)  # another process may have taken what was there
        self.lobby = Lobby(WAITING // processes)
        self.admission = Admission(most, max(_FEWEST_FOR_ECHO, FOR_ECHO // processes), Places(most))
        self.farewells = threading.BoundedSemaphore(_FAREWELLS // processes)
        self.loads = Loads(processes)

    def share_with(self, other: Server) -> None:
        """Have one count and one lobby with a server of this process that listens on another port."""
        self.lobby, self.admission, self.loads = other.lobby, other.admission, other.loads
        self.farewells = other.farewells

    def get_request(self) -> tuple[socket.socket, tuple[str, int]]:
        """Accept a connection; without Nagle's algorithm, which holds each small response back for 40 ms.

        Raises:
            BlockingIOError: another process took it.
        """
        if self.loads.another_has_fewer(self.number):
            time.sleep(_COURTESY_S)
        connection, address = cast(socket.socket, self.socket).accept()
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        limit_timeouts(connection, self.ae.network_timeout)
        self.loads.note(self.number, len(self.lobby) + len(self.admission) + 1)
        return connection, address

    def service_actions(self) -> None:
        """Let go of what has ended; called several times a second."""
        super().service_actions()
        self.went_round_at = time.monotonic()
        self.admission.forget_ended()
        self.loads.note(self.number, len(self.lobby) + len(self.admission))
        for event, address, times in self.repeats.due():
            log.warning("the same again", what=event, address=address, times=times)

    def handle_error(self, _request: Any, client_address: Any) -> None:
        """Log in one line what socketserver would print."""
        if self.repeats.is_first("connection failed", address := str(client_address[0])):
            log.error("connection failed", sys.exception(), address=address)

    def shutdown(self) -> None:
        """Stop listening, and begin nothing any more. pynetdicom's own form expects a server that its AE started."""
        self.admission.close()
        BaseServer.shutdown(self)
        self.loads.leave(self.number)
        self.server_close()
        self.lobby.close()

    def server_close(self) -> None:
        """Close our end. pynetdicom's own form shuts the socket down, which other processes may still listen on."""
        cast(socket.socket, self.socket).close()


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
        try:
            if (tls := self.server.tls) is not None:
                self.request = tls().wrap_socket(self.request, server_side=True, do_handshake_on_connect=False)
            self.server.lobby.enter(self.request, address)
            if isinstance(self.request, ssl.SSLSocket):
                _shake_hands(self.request, deadline)
            asked = read_association_request(_read_request(self.request, deadline))
        except (OSError, ValueError) as error:
            say = log.info if isinstance(error, (ConnectionError, ssl.SSLEOFError)) else log.warning
            if self.server.repeats.is_first("connection closed", address):
                say("connection closed: it asked for no association", address=address, why=reason(error))
            if isinstance(error, ssl.SSLError) and not isinstance(error, ssl.SSLEOFError):
                self.server.refused(address, reason(error))
            self.server.shutdown_request(self.request)
            return
        finally:
            self.server.lobby.leave(self.request)
        known = self.server.knows(asked, address, peer_certificate(self.request))
        if not self.server.admission.admit(
            lambda: self._begin(asked.pdu), echo_alone=asked.echo_alone, known=known, address=address
        ):
            self._tell_why_refused(address)
            self._refuse()

    def _tell_why_refused(self, address: str) -> None:
        if self.server.admission.has_all_it_may(address):
            if self.server.repeats.is_first(why := "association refused: its address has all it may have", address):
                log.warning("association refused: its address has all it may have", address=address)
        elif self.server.repeats.is_first(why := "association refused: all are in use", address):
            log.warning("association refused: all are in use", address=address)
        self.server.refused(address, why)

    def _begin(self, asked: bytes) -> AssociationOfOurs:
        association = self._create_association()
        reading = WholeReads.of(association, asked, self.server.longest_object)
        BoundedMessages.of(association.dimse, *self.server.incoming)
        GuardedReactor.of(association.dul)
        answer_stores_at_once(association)
        trigger(association, EVT_CONN_OPEN, {"address": self.client_address})
        association.start()
        return AssociationOfOurs(association, reading)

    def _refuse(self) -> None:
        """Send the rejection; where not too many are refused, wait a moment for the peer to have read it."""
        waits = self.server.farewells.acquire(blocking=False)
        with suppress(OSError):  # it did not wait for the answer
            self.request.sendall(_FULL)
            socket.socket.shutdown(self.request, socket.SHUT_WR)
            until = time.monotonic() + _FAREWELL_S
            while waits and time.monotonic() < until and self.request.recv(4096):
                pass
        if waits:
            self.server.farewells.release()
        self.server.shutdown_request(self.request)


class AssociationOfOurs:
    """What the admission asks of an association."""

    def __init__(self, association: Association, reading: WholeReads) -> None:
        self._association = association
        self._reading = reading

    def is_alive(self) -> bool:
        """Say whether it goes on: one half of pynetdicom's may wait for the other, dead one for 10 s."""
        dul = self._association.dul
        return self._association.is_alive() and (dul.is_alive() or not self._association._dul_ready.is_set())

    def stalled_s(self) -> float:
        """Say for how long nothing has come in the middle of a PDU; 0 between two."""
        came = self._reading.last_byte_at
        return 0.0 if came is None else time.monotonic() - came

    def idle_s(self) -> float:
        """Say for how long we have been waiting for its next message, or the next part of one; 0 where it waits."""
        return self._reading.idle_s()

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
    _header: bytearray
    """Of the PDU whose rest is to come; empty between two."""
    _begun_at: float
    _alarm: Alarm
    _unfinished: int
    """Bytes of the data set of which fragments have come."""
    _command_bytes: int
    """Of the command set of which fragments have come."""
    _longest_object: int
    last_byte_at: float | None
    """On the monotonic clock; None between two PDUs."""
    _quiet_since: float
    _owes_answer: bool
    """A whole data set has come, and nothing was sent since."""

    @classmethod
    def of(cls, association: Association, ahead: bytes, longest_object: int = sys.maxsize) -> WholeReads:
        """Change the socket of an association: pynetdicom has no hook for its class, and a second one would be
        announced twice."""
        reading = association.dul.socket
        reading.__class__ = cls
        ours = cast(WholeReads, reading)
        ours._alarm = wait_instead_of_looking(association, AnswerableMessages())
        ours.begin(ahead, longest_object)
        return ours

    def begin(self, ahead: bytes, longest_object: int) -> None:
        """Make it ready to read the first PDU."""
        self._ahead, self._header, self._begun_at, self.last_byte_at = bytearray(ahead), bytearray(), 0.0, None
        self._unfinished, self._command_bytes, self._longest_object = 0, 0, longest_object
        self._quiet_since, self._owes_answer = time.monotonic(), False

    @property
    def ready(self) -> bool:
        """Wait until there is something to read or to send, for a moment; say whether it is to read.

        Nothing is read from who sends on and on without waiting for answers: what is whole would pile up in memory.
        """
        full = self.assoc.dimse.msg_queue.qsize() >= MOST_WAITING
        if self._ahead and not full:
            return True
        connection = self.socket
        if connection is None or not self._is_connected:
            return False
        if isinstance(connection, ssl.SSLSocket) and connection.pending() and not full:
            return True
        try:
            came = self._alarm.wait_for(None if full else connection.fileno())
        except (OSError, ValueError):
            self.event_queue.put("Evt17")  # transport connection closed
            return False
        if not came:  # the loop sleeps where it finds no event
            self.assoc.dul._process_recv_primitive()
        return came

    def close(self) -> None:
        """Close the connection."""
        super().close()
        self._alarm.close()

    def recv(self, nr_bytes: int) -> bytearray:
        """Read ``nr_bytes``, a PDU's header or its rest; fewer where the connection ends before.

        Raises:
            OSError: the peer announced more than any PDU holds, was too slow with one, or sends an object without end.
        """
        if nr_bytes > LONGEST_PDU:
            raise OSError("the announced PDU is longer than allowed")
        is_rest = bool(self._header)
        if not is_rest:
            self._begun_at = self.last_byte_at = time.monotonic()
        received, self._ahead = self._ahead[:nr_bytes], self._ahead[nr_bytes:]
        if len(received) < nr_bytes:
            received += read_whole(cast(socket.socket, self.socket), nr_bytes - len(received), self._keep_pace)
        whole = len(received) == nr_bytes
        if is_rest and whole and self._header[0] == _P_DATA:
            self._check_values(received)
        if is_rest or not whole or not any(received[2:]):  # a PDU may be a header alone
            self._header, self.last_byte_at = bytearray(), None
            self._quiet_since = time.monotonic()
        else:
            self._header = received[:]
        return received

    def send(self, bytestream: bytes) -> None:
        """Send a PDU, and note that it is the peer's turn."""
        super().send(bytestream)
        self._quiet_since, self._owes_answer = time.monotonic(), False

    def idle_s(self) -> float:
        """Say for how long the peer has had its turn and sent nothing."""
        busy = self._owes_answer or self.last_byte_at is not None or not self.assoc.dimse.msg_queue.empty()
        return 0.0 if busy else time.monotonic() - self._quiet_since

    def _keep_pace(self, new: int, so_far: int) -> None:
        """Look whether a PDU comes in time.

        Raises:
            TimeoutError: nothing has come for PDU_S, or it comes more slowly than SLOWEST.
        """
        now = time.monotonic()
        if new:
            self.last_byte_at = now
        longest = min(PDU_S, self.assoc.network_timeout or PDU_S)
        took = now - self._begun_at
        silent = now - (self.last_byte_at or now) > longest
        if silent or (took > longest and so_far < took * SLOWEST):
            raise TimeoutError("the rest of a PDU did not come in time")

    def _check_values(self, data: bytearray) -> None:
        """Add up the fragments of a data set (PS3.8 9.3.5, Annex E.2).

        Raises:
            OSError: too many values in one PDU, or a data set that is longer than allowed.
        """
        begin = values = 0
        while begin + 6 <= len(data):
            length, _, control = struct.unpack_from(">LBB", data, begin)
            begin, values = begin + 4 + length, values + 1
            is_command, is_last = control & 1, control & 2
            self._command_bytes += length if is_command else 0
            self._unfinished += 0 if is_command else length
            too_long = self._command_bytes > LONGEST_COMMAND or self._unfinished > self._longest_object
            if too_long or values > MOST_VALUES:
                raise OSError("an object, or the number of its fragments, is larger than allowed")
            if is_last and is_command:
                self._command_bytes = 0
            elif is_last:
                self._unfinished, self._owes_answer = 0, True


def read_whole(connection: socket.socket, nr_bytes: int, look: Callable[[int, int], object]) -> bytearray:
    """Read so many bytes; fewer where the connection ends before.

    Args:
        look: called where there is more to wait for, with the bytes that came now and in all; may raise.

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
                look(new or 0, count)
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

    def in_time(_new: int, _count: int) -> None:
        seconds_left(deadline)

    header = read_whole(connection, _HEADER_BYTES, in_time)
    if len(header) < _HEADER_BYTES:
        raise ConnectionError("closed by the peer")
    kind, _, length = struct.unpack(">BBL", header)
    if kind != _ASSOCIATE_RQ:
        raise ValueError("what came first is no A-ASSOCIATE-RQ")
    if length > LONGEST_REQUEST:
        raise ValueError("its request is longer than any")
    rest = read_whole(connection, length, in_time)
    if len(rest) < length:
        raise ConnectionError("closed by the peer in the middle of its request")
    return bytes(header + rest)
