"""Listens, and lets go of what has ended."""

from __future__ import annotations

import socket
import ssl
import struct
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from socketserver import BaseServer
from typing import Any, Final, cast

from pynetdicom.transport import ThreadedAssociationServer

from ich_node.log import EventLog
from ich_node.receive.admission import FOR_ECHO, Admission, Lobby
from ich_node.receive.association_request import AssociationRequest
from ich_node.receive.places import Loads, Places
from ich_node.receive.transport.whole_reads import LOOK_S
from ich_node.records import PeerCertificate
from ich_node.repeats import Repeats

WAITING: Final = 128
"""Connections that have not asked yet."""

_FAREWELLS: Final = 32
_FEWEST_FOR_ECHO: Final = 2
_COURTESY_S: Final = 0.003
_COURTESIES: Final = 10
"""How often a process waits for one with fewer connections to go first: that one may be busy with those it has."""

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
        for _ in range(_COURTESIES):
            if not self.loads.another_has_fewer(self.number):
                break
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
        for (event, address), times in self.repeats.due():
            log.warning("the same again", what=event, address=address, times=times)

    def handle_error(self, _request: Any, client_address: Any) -> None:
        """Log in one line what socketserver would print."""
        if times := self.repeats.count("connection failed", address := str(client_address[0])):
            log.error("connection failed", sys.exception(), address=address, times=times)

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
    for option, seconds in ((socket.SO_RCVTIMEO, LOOK_S), (socket.SO_SNDTIMEO, send_s or 0.0)):
        connection.setsockopt(socket.SOL_SOCKET, option, struct.pack("ll", int(seconds), int(seconds % 1 * 1_000_000)))
