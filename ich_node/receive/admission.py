"""Who may have an association: connections that have not asked yet, and how many are served at once.

Nobody locks the others out with connections that ask for nothing, or with associations that stop in the middle of a
message or send none. Who holds one idle between two messages keeps its place for the idle time, unless somebody who
is known asks while the node is full: nothing is lost with it, and the sender opens another.
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
"""Without a byte in the middle of a PDU, after which an association has to make room when the node is full."""
IDLE_S: Final = 10.0
"""Without the next message, or the next part of one, after which an association has to make room likewise."""


class Served(Protocol):
    """An association that has begun."""

    def is_alive(self) -> bool: ...

    def stalled_s(self) -> float:
        """Say for how long nothing has come in the middle of a PDU; 0 between two."""

    def idle_s(self) -> float:
        """Say for how long it is its turn, and nothing has come."""

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

    def close(self) -> None:
        """Send everybody away."""
        with self._lock:
            for connection in self._waiting:
                shut(connection)
            self._waiting.clear()


class Admission:
    """Counts the associations that are served."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._lock = threading.Lock()
        self._served: list[Served] = []
        self._for_echo: list[Served] = []
        self._closed = False

    def admit(self, begin: Callable[[], Served], *, echo_alone: bool, known: bool) -> bool:
        """Begin an association, unless the node is full.

        Args:
            begin: makes and starts it.
            echo_alone: it proposes Verification and nothing else.
            known: it will be accepted; nobody has to make room for a stranger.

        Returns:
            False where it is to be refused, for now.
        """
        with self._lock:
            if self._closed:
                return False
            self._served = [one for one in self._served if one.is_alive()]
            if len(self._served) >= self._most and known and not echo_alone:
                self._make_room()
            if len(self._served) < self._most:
                self._served.append(begin())
                return True
            if echo_alone:
                self._admit_for_echo(begin)
            return echo_alone

    def forget_ended(self) -> None:
        """Let go of what has ended, and of the memory that it holds."""
        with self._lock:
            self._served = [one for one in self._served if one.is_alive()]
            self._for_echo = [one for one in self._for_echo if one.is_alive()]

    def close(self) -> None:
        """Begin nothing any more."""
        with self._lock:
            self._closed = True

    def _make_room(self) -> None:
        """Cut the one that stopped in a PDU for longest, else the one that is idle for longest, where that is long."""
        stalled = max(self._served, key=lambda one: one.stalled_s())
        idle = max(self._served, key=lambda one: one.idle_s())
        if stalled.stalled_s() > STALLED_S:
            self._served.remove(stalled)
            stalled.cut()
        elif idle.idle_s() > IDLE_S:
            self._served.remove(idle)
            idle.cut()

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
