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

from ich_node.receive.places import Places

FOR_ECHO: Final = 8
"""Associations beyond the limit for those who propose Verification alone: a full node still says that it is there."""
STALLED_S: Final = 2.0
"""Without a byte in the middle of a PDU, after which an association has to make room when the node is full."""
IDLE_S: Final = 10.0
"""Without the next message, or the next part of one, after which an association has to make room likewise."""

_BEFORE_IDLE_S: Final = 86400.0
_A_PLACE_S: Final = 0.5
"""That who finds the node full waits for a place which another process frees."""
_LOOK_S: Final = 0.05
_WAITING_FOR_A_PLACE: Final = 16


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

    def __len__(self) -> int:
        return len(self._waiting)

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
    """Counts the associations that are served, over all processes of the receiver.

    Args:
        most: how many at once.
        for_echo: associations beyond them, in this process, for who proposes Verification alone.
        places: those of all processes; own ones where there is one process.
    """

    def __init__(self, most: int, for_echo: int = FOR_ECHO, places: Places | None = None) -> None:
        self._most_for_echo = for_echo
        self._shared = places is not None
        self._places = places or Places(most)
        self._lock = threading.Lock()
        self._served: dict[Served, int] = {}
        """The place of each."""
        self._for_echo: list[Served] = []
        self._waiting = threading.BoundedSemaphore(_WAITING_FOR_A_PLACE)
        self._closed = False

    def limit_each_address(self, most: int) -> None:
        """Serve no more associations of one address at once than these; before the processes part."""
        self._places.limit_each_address(most)

    def has_all_it_may(self, address: str) -> bool:
        """Say whether an address has as many associations as one may have, in all processes."""
        with self._lock:
            return self._places.has_all_it_may(address)

    def __len__(self) -> int:
        """Count the associations in this process."""
        return len(self._served) + len(self._for_echo)

    def admit(self, begin: Callable[[], Served], *, echo_alone: bool, known: bool, address: str = "") -> bool:
        """Begin an association, unless the node is full, or its address has as many as it may.

        Args:
            begin: makes and starts it.
            echo_alone: it proposes Verification and nothing else.
            known: it will be accepted; nobody has to make room for a stranger.
            address: from which it comes. One that has as many as it may has to make room for itself.

        Returns:
            False where it is to be refused, for now.
        """
        may_wait = self._shared and known and not echo_alone and self._waiting.acquire(blocking=False)
        until = time.monotonic() + (_A_PLACE_S if may_wait else 0.0)
        try:
            while True:
                if self._admit_now(begin, address, echo_alone=echo_alone, known=known):
                    return True
                if self._closed or time.monotonic() >= until:
                    return False
                time.sleep(_LOOK_S)
        finally:
            if may_wait:
                self._waiting.release()

    def _admit_now(self, begin: Callable[[], Served], address: str, *, echo_alone: bool, known: bool) -> bool:
        with self._lock:
            if self._closed:
                return False
            self._look()
            place = self._places.take(address)
            if place is None and known and not echo_alone:
                place = self._make_room(address)
            if place is not None:
                self._begin_at(place, begin)
            elif echo_alone:
                self._admit_for_echo(begin)
            return place is not None or echo_alone

    def _begin_at(self, place: int, begin: Callable[[], Served]) -> None:
        begun = None
        try:
            begun = begin()
            self._served[begun] = place
        finally:
            if begun is None:  # the system gave it no thread
                self._places.give_back(place)

    def forget_ended(self) -> None:
        """Let go of what has ended, and of the memory that it holds; called several times a second."""
        with self._lock:
            self._look()

    def close(self) -> None:
        """Begin nothing any more."""
        with self._lock:
            self._closed = True

    def _look(self) -> None:
        """Give back the places of what has ended, and of what is overdue and asked to leave by another process."""
        self._for_echo = [one for one in self._for_echo if one.is_alive()]
        for one, place in list(self._served.items()):
            overdue_s = _overdue_s(one) if one.is_alive() else 0.0
            leaves = overdue_s > 0.0 and self._places.is_asked_for(place)
            if leaves:
                one.cut()
            if leaves or not one.is_alive():
                del self._served[one]
                self._places.give_back(place)
            else:
                self._places.note_overdue(place, overdue_s)

    def _make_room(self, address: str) -> int | None:
        """Cut the one that stopped in a PDU for longest, else the one that is idle for longest, where that is long.

        Returns:
            Its place; None where there is none, or another process has to cut it first.
        """
        of = address if self._places.has_all_it_may(address) else None
        elsewhere_s, there = self._places.longest_overdue_elsewhere(of)
        here = [one for one, place in self._served.items() if of is None or self._places.is_of(place, of)]
        longest = max(here, key=_overdue_s, default=None)
        overdue_s = 0.0 if longest is None else _overdue_s(longest)
        if max(overdue_s, elsewhere_s) <= 0.0:
            return None
        if longest is None or elsewhere_s > overdue_s:
            self._places.ask_to_leave(there)
            return None
        longest.cut()
        return self._places.hand_over(self._served.pop(longest), address)

    def _admit_for_echo(self, begin: Callable[[], Served]) -> None:
        """Who came first goes first: an echo takes milliseconds."""
        if len(self._for_echo) >= self._most_for_echo:
            self._for_echo.pop(0).cut()
        self._for_echo.append(begin())


def _overdue_s(one: Served) -> float:
    """Say for how long an association may be asked to make room; who stopped in a PDU goes before who is idle."""
    if (stalled_s := one.stalled_s()) > STALLED_S:
        return _BEFORE_IDLE_S + stalled_s - STALLED_S
    return max(0.0, one.idle_s() - IDLE_S)


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
