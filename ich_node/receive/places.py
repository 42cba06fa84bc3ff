"""What the processes of one receiver share: places for associations, and how much each has to do.

A place is a lock on a byte of a file in memory. The system frees the locks of a process that ends, however it ends, so
no place is ever lost; and nobody can take a place twice.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import mmap
import os
import struct
import time
from typing import Final

_DOUBLE: Final = 8
_TAKEN: Final = (errno.EAGAIN, errno.EACCES)
_AWAY: Final = float(2**31)
_DIGITS: Final = 6
"""Bytes of a number that a double holds exactly."""
_FLOCK: Final = "hhqqi4x"
"""``struct flock`` of Linux on 64 bits: type, whence, start, length, process."""


class Places:
    """Places that processes take and give back; made before they part. Each calls from one thread at a time."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._file = os.memfd_create("places", os.MFD_CLOEXEC)
        os.ftruncate(self._file, most)
        self._ours: set[int] = set()
        self._most_of_one = most
        self._whose = _Board(most)
        self._overdue_since = _Board(most)
        self._asked_to_leave = _Board(most)

    def limit_each_address(self, most: int) -> None:
        """Let no address have more places than these; before the processes part."""
        self._most_of_one = most

    def take(self, address: str = "") -> int | None:
        """Take a place; None where all are taken, or the address has as many as it may."""
        for place in range(self._most):
            if place not in self._ours and self._lock(place):
                self._ours.add(place)
                return self.hand_over(place, address)
        return None

    def hand_over(self, place: int, address: str) -> int | None:
        """Give a place of ours to another association; None where its address has as many as it may: it is free then.

        It is taken first and counted then, so that no two processes find the last one at the same time.
        """
        self._forget(place)
        self._whose[place] = _as_number(address)
        if self._held_by(address) <= self._most_of_one:
            return place
        self.give_back(place)
        return None

    def has_all_it_may(self, address: str) -> bool:
        """Say whether an address has as many places as one may have."""
        return self._held_by(address) >= self._most_of_one

    def is_of(self, place: int, address: str) -> bool:
        """Say whether a place is, or was last, that of an address."""
        return self._whose[place] == _as_number(address)

    def _held_by(self, address: str) -> int:
        """Count the places of an address. A process that was killed gave its places back, but still stands on them."""
        noted = [place for place in range(self._most) if self.is_of(place, address)]
        if len(noted) < self._most_of_one:
            return len(noted)
        return sum(place in self._ours or self._is_locked(place) for place in noted)

    def _is_locked(self, place: int) -> bool:
        """Say whether another process holds a place."""
        asked = struct.pack(_FLOCK, fcntl.F_WRLCK, os.SEEK_SET, place, 1, 0)
        held, *_ = struct.unpack(_FLOCK, fcntl.fcntl(self._file, fcntl.F_GETLK, asked))
        return bool(held != fcntl.F_UNLCK)

    def _lock(self, place: int) -> bool:
        try:
            fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, place)
        except OSError as error:
            if error.errno in _TAKEN:
                return False
            raise
        return True

    def _forget(self, place: int) -> None:
        self._whose[place] = self._overdue_since[place] = self._asked_to_leave[place] = 0.0

    def give_back(self, place: int) -> None:
        """Give a place of ours back."""
        self._ours.discard(place)
        self._forget(place)
        fcntl.lockf(self._file, fcntl.LOCK_UN, 1, place)

    def note_overdue(self, place: int, overdue_s: float) -> None:
        """Let the other processes know for how long the association of a place may be asked to make room.

        One that goes on meanwhile is not asked any more.
        """
        if overdue_s > 0.0:
            self._overdue_since[place] = time.monotonic() - overdue_s
        else:
            self._overdue_since[place] = self._asked_to_leave[place] = 0.0

    def longest_overdue_elsewhere(self, address: str | None = None) -> tuple[float, int]:
        """Give seconds and place of the association in another process that is overdue for longest; 0 where none is.

        Args:
            address: of which it has to be; None: of anybody.
        """
        now = time.monotonic()
        others = [place for place in range(self._most) if place not in self._ours and self._overdue_since[place]]
        others = [place for place in others if address is None or self.is_of(place, address)]
        return max(((now - self._overdue_since[place], place) for place in others), default=(0.0, 0))

    def ask_to_leave(self, place: int) -> None:
        """Ask for a place that another process holds."""
        self._asked_to_leave[place] = 1.0

    def is_asked_for(self, place: int) -> bool:
        """Say whether somebody asked for a place of ours."""
        return bool(self._asked_to_leave[place])

    def close(self) -> None:
        """Give everything back; may be called again."""
        if self._file >= 0:
            os.close(self._file)
        self._file = -1

    def __del__(self) -> None:
        self.close()


def _as_number(address: str) -> float:
    """Give a whole number for an address, the same one in every process; no two addresses have the same by chance."""
    return float(int.from_bytes(hashlib.blake2b(address.encode(), digest_size=_DIGITS).digest()) + 1)


class Loads:
    """Connections of each process, so that the one with the fewest takes the next."""

    def __init__(self, processes: int) -> None:
        self._processes = processes
        self._of_each = _Board(processes)

    def note(self, process: int, connections: int) -> None:
        """Note how many one has."""
        self._of_each[process] = connections

    def leave(self, process: int) -> None:
        """Note that one takes no more."""
        self._of_each[process] = _AWAY

    def another_has_fewer(self, process: int) -> bool:
        """Say whether another process should take the next connection."""
        mine = self._of_each[process]
        return any(self._of_each[one] < mine for one in range(self._processes))


class _Board:
    """Numbers in memory that processes share from the moment they part."""

    def __init__(self, numbers: int) -> None:
        self._memory = mmap.mmap(-1, _DOUBLE * numbers)

    def __getitem__(self, index: int) -> float:
        return float(struct.unpack_from("d", self._memory, _DOUBLE * index)[0])

    def __setitem__(self, index: int, value: float) -> None:
        struct.pack_into("d", self._memory, _DOUBLE * index, value)
