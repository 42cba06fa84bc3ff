"""What happens again and again is recorded once, then counted: a flood of refusals must not fill the disk."""

from __future__ import annotations

import threading
import time
from collections.abc import Hashable
from typing import Final

_WINDOW_S: Final = 60.0
_MOST_KEYS: Final = 1000
_OTHERS: Final = "others"


class Repeats:
    """Says which events are recorded, and for how many of the same kind each stands."""

    def __init__(self, window_s: float = _WINDOW_S) -> None:
        self._window_s = window_s
        self._lock = threading.Lock()
        self._seen: dict[Hashable, tuple[float, int]] = {}
        """Of each kind: when one was last recorded, and how many came since."""

    def count(self, kind: Hashable) -> int:
        """Note an event. Gives 0 where it is not to be recorded now, else how many it stands for."""
        now = time.monotonic()
        with self._lock:
            if kind not in self._seen and len(self._seen) >= _MOST_KEYS:
                self._forget(now)
                kind = kind if len(self._seen) < _MOST_KEYS else _OTHERS
            recorded_at, unrecorded = self._seen.get(kind, (float("-inf"), 0))
            if now - recorded_at < self._window_s:
                self._seen[kind] = (recorded_at, unrecorded + 1)
                return 0
            self._seen[kind] = (now, 0)
            return unrecorded + 1

    def left(self) -> dict[Hashable, int]:
        """Take the kinds that were counted since they were last recorded."""
        with self._lock:
            left = {kind: count for kind, (_, count) in self._seen.items() if count}
            self._seen.clear()
            return left

    def _forget(self, now: float) -> None:
        """Drop kinds that have not come again."""
        for kind in [kind for kind, (at, count) in self._seen.items() if not count and now - at >= self._window_s]:
            del self._seen[kind]
