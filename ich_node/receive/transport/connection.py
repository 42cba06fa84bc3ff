"""Makes an association of a connection that asks for one, and reads its request in time."""

from __future__ import annotations

import socket
import ssl
import struct
import time
from contextlib import suppress
from typing import Final

from pynetdicom.association import Association
from pynetdicom.events import EVT_CONN_OPEN, trigger
from pynetdicom.transport import RequestHandler

from ich_node.log import EventLog
from ich_node.receive.admission import seconds_left, shut
from ich_node.receive.association_request import ReadRequest, read_association_request
from ich_node.receive.incoming import BoundedMessages, GuardedReactor
from ich_node.receive.store_response import answer_stores_at_once
from ich_node.receive.transport.server import Server
from ich_node.receive.transport.whole_reads import LOOK_S, WholeReads, read_whole
from ich_node.tls import peer_certificate, reason

LONGEST_REQUEST: Final = 256 * 1024
"""Bytes of an A-ASSOCIATE-RQ; one with 128 contexts, each of 20 transfer syntaxes, has 100 KiB."""
REQUEST_S: Final = 5.0
"""From the connection until its request is here, TLS handshake included."""

_HEADER_BYTES: Final = 6
_ASSOCIATE_RQ: Final = 0x01
_FAREWELL_S: Final = 2.0
_FULL: Final = struct.pack(">BBLBBBB", 0x03, 0, 4, 0, 2, 3, 2)
"""A-ASSOCIATE-RJ: transient, by the provider (presentation), local limit exceeded (PS3.8 9.3.4)."""

log = EventLog("receive")


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
            self._tell_why_closed(address, error)
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

    def _tell_why_closed(self, address: str, error: OSError | ValueError) -> None:
        left = isinstance(error, (ssl.SSLEOFError, ssl.SSLZeroReturnError))  # Python 3.11.2 and 3.11.7 name it so
        if left and address == self.request.getsockname()[0]:  # our own check ends so, every few seconds
            return
        if times := self.server.repeats.count("connection closed", address):
            say = log.info if left or isinstance(error, ConnectionError) else log.warning
            say("connection closed: it asked for no association", address=address, why=reason(error), times=times)
        if isinstance(error, ssl.SSLError) and not left:
            self.server.refused(address, reason(error))

    def _tell_why_refused(self, address: str) -> None:
        has_all = self.server.admission.has_all_it_may(address)
        why = f"association refused: {'its address has all it may have' if has_all else 'all are in use'}"
        if times := self.server.repeats.count(why, address):
            log.warning(why, address=address, times=times)
        self.server.refused(address, why)

    def _begin(self, asked: ReadRequest) -> AssociationOfOurs:
        association = self._create_association()
        reading = WholeReads.of(association, asked.encoded, self.server.longest_object)
        BoundedMessages.of(association.dimse, *self.server.incoming)
        GuardedReactor.of(association.dul, asked, reading.let_go)
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


def _shake_hands(connection: ssl.SSLSocket, deadline: float) -> None:
    """Do the TLS handshake in time; a peer that sends a byte now and then gets no more of it."""
    while True:
        connection.settimeout(min(LOOK_S, seconds_left(deadline)))
        try:
            connection.do_handshake()
        except TimeoutError:
            continue
        connection.settimeout(LOOK_S)
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
