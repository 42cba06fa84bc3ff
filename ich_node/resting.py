"""Destinations that could not be reached: they rest, instead of every object knocking by itself."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass

from ich_node.job_queue import DeliveryRules


@dataclass(slots=True)
class _Rest:
    failures: int
    until: float
    """On the monotonic clock."""


class Resting:
    """Who rests, and until when. Never longer than ``paused_retry_s``: what is new must not wait for long."""

    def __init__(self, rules: DeliveryRules) -> None:
        self._rules = rules
        self._lock = threading.Lock()
        self._rests: dict[str, _Rest] = {}

    def names(self) -> list[str]:
        """Name the destinations that are to be left alone now."""
        with self._lock:
            return [name for name, rest in self._rests.items() if rest.until > time.monotonic()]

    def begin(self, name: str) -> None:
        """Note that a destination could not be reached; it rests for longer each time."""
        with self._lock:
            failures = self._rests[name].failures + 1 if name in self._rests else 1
            pause_s = min(self._rules.pause_s(failures), self._rules.paused_retry_s)
            self._rests[name] = _Rest(failures, time.monotonic() + pause_s)

    def end(self, name: str) -> bool:
        """Note that a destination answers. True: it did not before."""
        with self._lock:
            return self._rests.pop(name, None) is not None
