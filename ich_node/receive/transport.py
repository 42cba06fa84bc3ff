"""The listening socket under pynetdicom."""

from __future__ import annotations

import socket
from socketserver import BaseServer

from pynetdicom.transport import ThreadedAssociationServer


class Server(ThreadedAssociationServer):
    """A threaded server whose connections answer at once."""

    daemon_threads = True
    request_queue_size = 128

    def get_request(self) -> tuple[socket.socket, tuple[str, int]]:
        """Accept a connection; without Nagle's algorithm, which holds each small response back for 40 ms."""
        connection, address = super().get_request()
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connection, address

    def shutdown(self) -> None:
        """Stop listening. pynetdicom's own form expects a server that its AE started."""
        BaseServer.shutdown(self)
        self.server_close()
