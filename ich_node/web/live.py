"""What has changed, told to every browser that looks: one look at the database serves them all."""

from __future__ import annotations

import asyncio
import hashlib
import json
import threading
from collections.abc import AsyncIterator, Callable
from typing import Any, Final

from ich_node.database import ChangeWatch, Database
from ich_node.errors import IchNodeError
from ich_node.log import EventLog
from ich_node.queries import WorklistQuery, WorklistStudy, what_waits, worklist

_LOOK_S: Final = 1.0
_STILL_THERE_S: Final = 15.0
"""Proxies close what is silent for long."""
_MOST_BROWSERS: Final = 300
_WATCHED: Final = 200
"""Studies of which a change is told: the newest."""
_COUNTS: Final = ("in_progress", "undelivered", "failed", "quarantined", "dead", "unanswered")

log = EventLog("web")


class LiveFeed:
    """Tells browsers when the worklist has changed (server-sent events).

    Args:
        look: gives what browsers are to know, from the database; called in a thread of its own, once a second, and
            only while somebody listens.
        watch: sees whether anything was written since.
    """

    def __init__(self, look: Callable[[], dict[str, Any]], watch: Callable[[], ChangeWatch]) -> None:
        self._look = look
        self._watch = watch
        self._listening = 0
        self._state: dict[str, Any] = {}
        self._number = 0
        self._looks = 0
        self._is_known = False
        self._owed = False
        """Somebody came while it was not known how things stand."""
        self._changed: set[asyncio.Event] = set()
        self._loop: asyncio.AbstractEventLoop | None = None

    @property
    def version(self) -> int | None:
        """Number of the last look at what had changed; None while nobody looks, and changes are not seen."""
        return self._looks if self._is_known else None

    @property
    def is_full(self) -> bool:
        """Say whether no more browsers can be served."""
        return self._listening >= _MOST_BROWSERS

    async def events(self, is_gone: Callable[[], Any]) -> AsyncIterator[str]:
        """Give the stream of one browser: how things stand, then each change."""
        changed = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._changed.add(changed)
        self._listening += 1
        try:
            yield "retry: 3000\n\n"
            if self._is_known:
                yield self._message()
            else:
                self._owed = True
            while not await is_gone():
                try:
                    await asyncio.wait_for(changed.wait(), _STILL_THERE_S)
                except TimeoutError:
                    yield ": still there\n\n"
                    continue
                changed.clear()
                yield self._message()
        finally:
            self._listening -= 1
            self._is_known = self._is_known and self._listening > 0
            self._changed.discard(changed)

    def _message(self) -> str:
        return f"id: {self._number}\nevent: change\ndata: {json.dumps(self._state)}\n\n"

    def run(self, stop: threading.Event) -> None:
        """Look again and again, until told to stop."""
        watch = self._watch()
        while not stop.wait(_LOOK_S):
            if self._listening and (watch.changed() or not self._is_known):
                self._look_again()
        watch.close()

    def _look_again(self) -> None:
        self._looks += 1
        owed, self._owed = self._owed, False
        try:
            state = self._look()
        except IchNodeError as error:
            log.error("the live worklist cannot be read now; trying again", error)
            self._is_known, self._owed = False, True
            return
        self._is_known = self._listening > 0
        if owed or state != self._state:
            self._state, self._number = state, self._number + 1
            self._tell()

    def _tell(self) -> None:
        loop = self._loop
        if loop is None or loop.is_closed():
            return
        for one in list(self._changed):
            loop.call_soon_threadsafe(one.set)


def live_state(database: Database) -> dict[str, Any]:
    """Say how things stand: what waits, and of each of the newest studies a mark that changes with it."""
    waiting = what_waits(database)
    studies = {
        one.status.study_instance_uid: hashlib.sha256(repr(_what_counts(one)).encode()).hexdigest()[:12]
        for one in worklist(database, WorklistQuery(), limit=_WATCHED).studies
    }
    counts = {name: getattr(waiting, name) for name in _COUNTS}
    return {"waiting": counts, "studies": studies}


def _what_counts(one: WorklistStudy) -> tuple[Any, ...]:
    status = one.status
    return (
        status.outcome, status.revision, one.slices, one.last_received_at,
        [(series.state, series.planes) for series in status.series],
        [(delivery.state, delivery.revision, delivery.attempts) for delivery in status.deliveries],
        [(alert.state, alert.acknowledged_at) for alert in status.alerts],
    )  # fmt: skip
