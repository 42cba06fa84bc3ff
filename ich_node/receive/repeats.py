"""Who is refused is named in one line a minute, with a number: a log that an attacker fills hides him."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Final

EVERY_S: Final = 60.0
MOST: Final = 1000
"""Addresses and events that are told apart; what is beyond counts as one."""
OTHERS: Final = "others"


class Repeats:
    """Counts events by address, and says which are to be told."""

    def __init__(self, every_s: float = EVERY_S, clock: Callable[[], float] = time.monotonic) -> None:
        self._every_s = every_s
        self._clock = clock
        self._lock = threading.Lock()
        self._told: dict[tuple[str, str], tuple[float, int]] = {}
        """When an event of an address was told, and how often it happened since."""

    def is_first(self, event: str, address: str) -> bool:
        """Count an event; say whether it is to be told now, as none of its address was for a while."""
        with self._lock:
            key = (event, address)
            if key not in self._told and len(self._told) >= MOST:
                key = (event, OTHERS)
            if key not in self._told:
                self._told[key] = (self._clock(), 0)
                return True
            told_at, more = self._told[key]
            self._told[key] = (told_at, more + 1)
            return False

    def due(self) -> list[tuple[str, str, int]]:
        """Give event, address and number of what happened again, after its while; forget what did not."""
        with self._lock:
            now = self._clock()
            over = [key for key, (told_at, _) in self._told.items() if now - told_at >= self._every_s]
            counted = [(*key, self._told.pop(key)[1]) for key in over]
            again = [one for one in counted if one[2]]
            for event, address, _ in again:
                self._told[event, address] = (now, 0)
            return again
