"""What has happened in the life of the node, as numbers that never fall.

Rows stay, but what they say changes: a study that is analysed again has other steps, a result that is sent again was
delivered once more. So each happening is counted once, when it is first seen, and the sums lie in a file of their own.
It is behind the database by what has happened since the last look, and what a crash takes from it is counted again.
"""

from __future__ import annotations

import dataclasses
import json
import threading
import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from ich_node.durable import replace_durably
from ich_node.errors import IchNodeError
from ich_node.log import EventLog
from ich_node.queries import STEPS, Happenings, Mark

FILE: Final = "metrics.json"
BOUNDS_S: Final = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 30, 60, 120, 300, 600, 1800, 3600, 14400, 86400)
"""Of the histograms."""
_LONGEST_S: Final = 1.0
"""Of one look: who waits for the metrics gets them without the totals where a long past is left to count."""

log = EventLog("web")


@dataclass(slots=True)
class StepTimes:
    """How long a step took, each time."""

    buckets: list[int] = field(default_factory=lambda: [0] * (len(BOUNDS_S) + 1))
    """How many took no longer than each of `BOUNDS_S` and longer than the one before; last those beyond all."""
    sum_s: float = 0.0

    def add(self, seconds: float) -> None:
        """Count one. A clock that was set back meanwhile makes no step shorter than nothing."""
        self.buckets[bisect_left(BOUNDS_S, max(0.0, seconds))] += 1
        self.sum_s += max(0.0, seconds)


@dataclass(slots=True)
class Sums:
    """All that was counted, up to a mark."""

    mark: Mark = field(default_factory=Mark)
    counts: Counter[tuple[str, ...]] = field(default_factory=Counter)
    steps: dict[str, StepTimes] = field(default_factory=lambda: {name: StepTimes() for name in STEPS})


class Totals:
    """Counts what happens, and keeps the sums in a folder of this host's own.

    Args:
        look: gives what has happened since a mark.
    """

    def __init__(self, host_directory: Path, look: Callable[[Mark], Happenings]) -> None:
        self._file = host_directory / FILE
        self._look = look
        self._lock = threading.Lock()
        self._sums = _read(self._file)

    def now(self) -> Sums | None:
        """Count what is new and give the sums. None: a long past is not counted to its end yet."""
        with self._lock:
            return self._sums if self._count() else None

    def _count(self) -> bool:
        before, more, began = self._sums.mark, True, time.monotonic()
        while more:
            new = self._look(self._sums.mark)
            self._sums.counts.update(new.counts)
            for step, seconds in new.seconds:
                self._sums.steps[step].add(seconds)
            self._sums.mark, more = new.mark, new.more
            if time.monotonic() - began >= _LONGEST_S:
                break
        if self._sums.mark != before:
            self._save()
        return not more

    def _save(self) -> None:
        """Keep the sums before anybody has seen them; where that fails they are counted again after a restart."""
        try:
            replace_durably(self._file, [json.dumps(_to_json(self._sums)).encode()])
        except (IchNodeError, OSError) as error:
            log.error("the totals of the metrics cannot be kept", error)


def _to_json(sums: Sums) -> dict[str, Any]:
    return {
        "mark": dataclasses.asdict(sums.mark),
        "counts": [[list(name), count] for name, count in sorted(sums.counts.items())],
        "bounds_s": BOUNDS_S,
        "steps": {name: dataclasses.asdict(times) for name, times in sums.steps.items()},
    }


def _read(file: Path) -> Sums:
    """Read what was counted; where nothing was, or other buckets, it is counted again from the beginning."""
    try:
        kept = json.loads(file.read_bytes())
        if tuple(kept["bounds_s"]) != BOUNDS_S or set(kept["steps"]) != set(STEPS):
            return Sums()
        return Sums(
            Mark(**kept["mark"]),
            Counter({tuple(name): count for name, count in kept["counts"]}),
            {name: StepTimes(**times) for name, times in kept["steps"].items()},
        )
    except FileNotFoundError:
        return Sums()
    except (OSError, ValueError, TypeError, KeyError) as error:
        log.error("the totals of the metrics cannot be read, and are counted anew", error)
        return Sums()
