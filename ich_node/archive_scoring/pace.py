"""How a PACS is asked politely: at some hours, no faster than allowed, and more slowly where it has trouble."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from ich_node.errors import BulkScoringStopped

_LOOK_S: Final = 60.0
"""Longest sleep: the clock may be set meanwhile."""


@dataclass(frozen=True, slots=True)
class Hours:
    """Hours of the day, local time: from the first, until the second begins; over midnight too."""

    begin: int
    end: int

    def hold(self, at: datetime) -> bool:
        """Say whether a time is within them."""
        if self.begin < self.end:
            return self.begin <= at.hour < self.end
        return at.hour >= self.begin or at.hour < self.end

    def next_begin(self, at: datetime) -> datetime:
        """Give when they begin next."""
        begin = at.replace(hour=self.begin, minute=0, second=0, microsecond=0)
        return begin if begin > at else begin + timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Politeness:
    """What a PACS may be asked for."""

    per_hour: int = 120
    """Series."""
    hours: Hours | None = None
    first_rest_s: float = 10.0
    """Where the PACS has trouble; the next is twice as long, and so on."""
    longest_rest_s: float = 600.0
    give_up_s: float = 6 * 3600.0
    """Of trouble without a break."""


class Pace:
    """Waits before the PACS is asked.

    Args:
        on_wait: told why and for how many seconds, before each wait that somebody may wonder about.
    """

    def __init__(
        self,
        politeness: Politeness,
        on_wait: Callable[[str, float], None],
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], datetime] = lambda: datetime.now().astimezone(),
    ) -> None:
        self._politeness = politeness
        self._on_wait = on_wait
        self._sleep = sleep
        self._clock = clock
        self._asked_at: float | None = None
        self._met = False
        self._trouble_since: float | None = None
        self._rest_s = politeness.first_rest_s

    def wait_for_query(self) -> None:
        """Wait until it is one of the hours."""
        hours = self._politeness.hours
        if hours is None or hours.hold(now := self._clock()):
            return
        begin = hours.next_begin(now)
        self._on_wait(f"the PACS is asked again at {begin:%H:%M}", (begin - now).total_seconds())
        while not hours.hold(now := self._clock()):
            self._sleep(min(_LOOK_S, max(0.1, (hours.next_begin(now) - now).total_seconds())))

    def wait_for_move(self) -> None:
        """Wait until it is one of the hours, and time for the next series."""
        if self._asked_at is not None:
            left = self._asked_at + 3600.0 / self._politeness.per_hour - time.monotonic()
            if left > 0:
                self._sleep(left)
        self.wait_for_query()
        self._asked_at = time.monotonic()

    def met(self) -> None:
        """Note that the PACS took an association."""
        self._met = True

    def well(self) -> None:
        """Note that the PACS did what it was asked."""
        self._met, self._trouble_since, self._rest_s = True, None, self._politeness.first_rest_s

    def rest(self, why: str) -> None:
        """Leave a PACS that has trouble alone, longer each time.

        Raises:
            BulkScoringStopped: it was never met, so that it is hardly the PACS; or it has had trouble for too long.
        """
        now = time.monotonic()
        if not self._met:
            raise BulkScoringStopped(f"the PACS cannot be asked: {why}")
        since = self._trouble_since = now if self._trouble_since is None else self._trouble_since
        if now - since > self._politeness.give_up_s:
            raise BulkScoringStopped(
                f"the PACS has had trouble for {(now - since) / 3600:.1f} hours ({why}); run it again later"
            )
        self._on_wait(why, self._rest_s)
        self._sleep(self._rest_s)
        self._rest_s = min(2 * self._rest_s, self._politeness.longest_rest_s)
