"""Hosts that share a database: the times in it are theirs together, so their clocks must agree.

No host moves what waits when its clock is set, as one that has the database for itself does (``clock``): others wrote
it, too. Instead each compares its clock with the database server's. One that is half a lease off would take what others
hold, and close series before their time: it does nothing until the clocks agree, and says so.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Final

from ich_node.database import Database
from ich_node.errors import ClockDisagrees

NOTICED_S: Final = 2.0
MOST_S: Final = 30.0
"""Half a lease."""
_COMPARED_EVERY_S: Final = 30.0


class SharedClock:
    """Looks at the clock before every transaction of one process; see the module.

    Args:
        on_step: called where the clock of this host was set, with the step in seconds.
        on_difference: called at each comparison that shows a difference to be noticed, with the seconds.
    """

    def __init__(
        self, database: Database, on_step: Callable[[float], None], on_difference: Callable[[float], None]
    ) -> None:
        self._database = database
        self._on_step = on_step
        self._on_difference = on_difference
        self._lock = threading.Lock()
        self._offset_s: float | None = None
        """Of the clock to the monotonic one, when they were last found to agree."""
        self._compared_at = 0.0

    def look(self) -> None:
        """Compare, where that is due or the clock was set meanwhile.

        Raises:
            ClockDisagrees: this host must not write, nor decide by what it reads.
            DatabaseAway: the server does not answer.
        """
        if self._is_settled():
            return
        with self._lock:
            if self._is_settled():
                return
            ahead_s = self._database.ahead_of_server_s()
            if abs(ahead_s) >= NOTICED_S:
                self._on_difference(ahead_s)
            if abs(ahead_s) >= MOST_S:
                raise ClockDisagrees(ahead_s)
            before, self._offset_s, self._compared_at = self._offset_s, _offset_s(), time.monotonic()
        if before is not None and abs(self._offset_s - before) >= NOTICED_S:
            self._on_step(self._offset_s - before)

    def _is_settled(self) -> bool:
        if self._offset_s is None or time.monotonic() - self._compared_at >= _COMPARED_EVERY_S:
            return False
        return abs(_offset_s() - self._offset_s) < NOTICED_S


def _offset_s() -> float:
    return time.time() - time.monotonic()
