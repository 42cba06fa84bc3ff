"""How often a program may ask: a bucket of requests for each token, in memory."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Final

REQUESTS_PER_S: Final = 20.0


class Allowance:
    """Counts requests by name: so many each second, and as many at once."""

    def __init__(self, per_s: float = REQUESTS_PER_S, clock: Callable[[], float] = time.monotonic) -> None:
        self._per_s = per_s
        self._clock = clock
        self._lock = threading.Lock()
        self._left: dict[str, tuple[float, float]] = {}
        """Requests that are left, and when that was so."""

    def take(self, name: str) -> float:
        """Take one request; return 0, or after how many seconds there is one again."""
        with self._lock:
            now = self._clock()
            left, then = self._left.get(name, (self._per_s, now))
            left = min(self._per_s, left + (now - then) * self._per_s)
            enough = left >= 1.0
            self._left[name] = (left - 1.0 if enough else left, now)
            return 0.0 if enough else (1.0 - left) / self._per_s
