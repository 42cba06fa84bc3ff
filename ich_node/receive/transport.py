"""The listening socket under pynetdicom, and how its connections are read."""

from __future__ import annotations

import socket
import struct
import time
from socketserver import BaseServer
from typing import Final, cast

from pynetdicom.association import Association
from pynetdicom.transport import AssociationSocket, RequestHandler, ThreadedAssociationServer

_LONGEST_PDU: Final = 1024 * 1024 + 1024
"""Bytes: beyond the largest maximum that can be configured, and beyond any association request."""


class Server(ThreadedAssociationServer):
    """A threaded server whose connections answer at once."""

    daemon_threads = True
    request_queue_size = 128

    def get_request(self) -> tuple[socket.socket, tuple[str, int]]:
        """Accept a connection; without Nagle's algorithm, which holds each small response back for 40 ms."""
        connection, address = super().get_request()
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if (timeout_s := self.ae.network_timeout) is not None:
            # In the system, not in Python: there it would cost a second call for every read.
            limit = struct.pack("ll", int(timeout_s), int(timeout_s % 1 * 1_000_000))
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, limit)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)
        return connection, address

    def shutdown(self) -> None:
        """Stop listening. pynetdicom's own form expects a server that its AE started."""
        BaseServer.shutdown(self)
        self.server_close()


class ConnectionHandler(RequestHandler):
    """Gives each association a socket that reads whole PDUs."""

    def _create_association(self) -> Association:
        association = super()._create_association()
        # pynetdicom has no hook for the class of its sockets, and making a second one would announce it twice.
        association.dul.socket.__class__ = WholeReads
        return association


class WholeReads(AssociationSocket):
    """Reads a PDU with one call to the system where pynetdicom makes one for every 4 KiB.

    After each call a thread queues for the interpreter; with several associations that took most of the time.
    """

    def recv(self, nr_bytes: int) -> bytearray:
        """Read ``nr_bytes``; fewer where the connection ends before.

        Raises:
            OSError: the peer announced more than any PDU holds, or stopped in the middle of one.
        """
        if nr_bytes > _LONGEST_PDU:
            raise OSError("the announced PDU is longer than allowed")
        connection = cast(socket.socket, self.socket)
        deadline = time.monotonic() + (self.assoc.network_timeout or float("inf"))
        received = bytearray(nr_bytes)
        count = 0
        with memoryview(received) as view:
            while count < nr_bytes:
                new = connection.recv_into(view[count:], nr_bytes - count, socket.MSG_WAITALL)
                if not new:
                    break
                count += new
                if count < nr_bytes and time.monotonic() > deadline:
                    raise TimeoutError("the rest of a PDU did not come in time")
        del received[count:]
        return received
