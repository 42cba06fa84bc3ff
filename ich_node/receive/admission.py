"""Who may have an association: connections that have not asked yet, and how many are served at once.

Nobody locks the others out: neither with connections that ask for nothing, nor with associations that stop in the
middle of a message, nor with many of either.
"""

from __future__ import annotations

import socket
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Final, Protocol

FOR_ECHO: Final = 8
"""Associations beyond the limit for those who propose Verification alone: a full node still says that it is there."""
STALLED_S: Final = 2.0
"""In the middle of one PDU, after which an association has to make room when the node is full."""


class Served(Protocol):
    """An association that has begun."""

    def is_alive(self) -> bool: ...

    def stalled_s(self) -> float:
        """Say for how long it has been in the middle of a PDU; 0 between two."""

    def cut(self) -> None:
        """Close its connection; it ends soon."""


class Lobby:
    """Connections that have not asked for an association yet. Who fills it pushes out their own."""

    def __init__(self, places: int) -> None:
        self._places = places
        self._lock = threading.Lock()
        self._waiting: dict[socket.socket, str] = {}
        """Address of each, the oldest first."""

    def enter(self, connection: socket.socket, address: str) -> None:
        """Let a connection in; where there is no place, the oldest of the address with the most goes."""
        with self._lock:
            if len(self._waiting) >= self._places:
                most, _ = Counter(self._waiting.values()).most_common(1)[0]
                oldest = next(one for one, whose in self._waiting.items() if whose == most)
                del self._waiting[oldest]
                shut(oldest)
            self._waiting[connection] = address

    def leave(self, connection: socket.socket) -> None:
        """Note that a connection has asked, or is gone."""
        with self._lock:
            self._waiting.pop(connection, None)


class Admission:
    """Counts the associations that are served."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._lock = threading.Lock()
        self._served: list[Served] = []
        self._for_echo: list[Served] = []

    def admit(self, begin: Callable[[], Served], *, echo_alone: bool) -> bool:
        """Begin an association, unless the node is full.

        Args:
            begin: makes and starts it.
            echo_alone: it proposes Verification and nothing else.

        Returns:
            False where it is to be refused, for now.
        """
        with self._lock:
            self._served = [one for one in self._served if one.is_alive()]
            if len(self._served) >= self._most:
                self._make_room()
            if len(self._served) < self._most:
                self._served.append(begin())
                return True
            if echo_alone:
                self._admit_for_echo(begin)
            return echo_alone

    def _make_room(self) -> None:
        """Cut what has been in the middle of a PDU for long: whoever sends at all is done with one sooner."""
        stalled = [one for one in self._served if one.stalled_s() > STALLED_S]
        for one in stalled:
            one.cut()
        self._served = [one for one in self._served if one not in stalled]

    def _admit_for_echo(self, begin: Callable[[], Served]) -> None:
        """Who came first goes first: an echo takes milliseconds."""
        self._for_echo = [one for one in self._for_echo if one.is_alive()]
        if len(self._for_echo) >= FOR_ECHO:
            self._for_echo.pop(0).cut()
        self._for_echo.append(begin())


def shut(connection: socket.socket) -> None:
    """End a connection in both directions; whoever waits for its bytes goes on at once."""
    try:
        socket.socket.shutdown(connection, socket.SHUT_RDWR)  # of TLS too, without a farewell that could block
    except OSError:  # it is gone
        return


def seconds_left(deadline: float) -> float:
    """Give the seconds until a deadline of the monotonic clock.

    Raises:
        TimeoutError: it has passed.
    """
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError("not in time")
    return left
