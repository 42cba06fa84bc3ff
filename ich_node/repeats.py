"""What happens again and again is told once a minute with its number: a flood must fill neither log nor audit trail."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Final

EVERY_S: Final = 60.0
MOST: Final = 1000
"""Kinds that are told apart; of what is beyond, those with the same first word count as one."""
OTHERS: Final = "others"

Kind = tuple[str, ...]


class Repeats:
    """Counts events by kind, and says which are to be told, and for how many each stands."""

    def __init__(self, every_s: float = EVERY_S, clock: Callable[[], float] = time.monotonic) -> None:
        self._every_s = every_s
        self._clock = clock
        self._lock = threading.Lock()
        self._told: dict[Kind, tuple[float, int]] = {}
        """When one of a kind was told, and how many came since."""

    def count(self, what: str, who: str, *more: str) -> int:
        """Note an event. Gives 0 where it is not to be told now, else how many it stands for."""
        kind = (what, who, *more)
        with self._lock:
            now = self._clock()
            if kind not in self._told and len(self._told) >= MOST:
                self._forget(now)
                kind = kind if len(self._told) < MOST else (what, OTHERS, *("" for _ in more))
            told_at, more_came = self._told.get(kind, (float("-inf"), 0))
            tells = now - told_at >= self._every_s
            self._told[kind] = (now, 0) if tells else (told_at, more_came + 1)
            return more_came + 1 if tells else 0

    def due(self) -> list[tuple[Kind, int]]:
        """Take what came again and is to be told now, with its number; forget what did not."""
        with self._lock:
            now = self._clock()
            self._forget(now)
            again = [(kind, came) for kind, (at, came) in self._told.items() if now - at >= self._every_s]
            self._told.update({kind: (now, 0) for kind, _ in again})
            return again

    def left(self) -> list[tuple[Kind, int]]:
        """Take all that came again and was not told."""
        with self._lock:
            left = [(kind, came) for kind, (_, came) in self._told.items() if came]
            self._told.clear()
            return left

    def _forget(self, now: float) -> None:
        """Drop kinds that have not come again."""
        for kind in [kind for kind, (at, came) in self._told.items() if not came and now - at >= self._every_s]:
            del self._told[kind]
