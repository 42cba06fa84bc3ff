"""Places at which a test may kill this process, or have the disk fail. Nothing happens there in a node that runs.

Armed by two environment variables together: ``ICH_NODE_FAILPOINT=name[:nth][=action]`` and
``ICH_NODE_MAY_BE_KILLED=by a test``. Actions: ``kill`` (as ``kill -9`` does), ``eio``, ``enospc``, ``sleep:SECONDS``.
"""

from __future__ import annotations

import errno
import os
import signal
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

FAILPOINT: Final = "ICH_NODE_FAILPOINT"
MAY_BE_KILLED: Final = "ICH_NODE_MAY_BE_KILLED"
BY_A_TEST: Final = "by a test"

Point = Literal[
    "adopted-before-row", "alert-claimed", "alert-entered", "alert-noted", "alert-told", "answer-before-send",
    "commit-after", "commit-before", "commitment-answer-matched", "commitment-answer-stored", "commitment-asked",
    "commitment-before-ask", "concluded", "conclusion-before-commit", "delivery-before-send",
    "delivery-claimed", "delivery-noted", "delivery-stored", "file-before-folder-sync", "file-before-rename",
    "file-before-sync", "file-half-written", "images-forgotten", "instance-before-row", "instances-read",
    "instances-saved", "leases-before-release", "migrated-before-commit", "no-result-before-row",
    "object-received", "planes-saved", "planes-scored", "release-before-note", "report-before-row",
    "report-before-save", "results-forgotten", "series-claimed", "series-closed", "stray-before-unlink",
]  # fmt: skip
"""Every place there is, on the way of an image from its first byte to a delivery that is confirmed and committed to."""


@dataclass(slots=True)
class _Armed:
    point: str
    left: int
    action: str
    lock: threading.Lock = field(default_factory=threading.Lock)


_armed: _Armed | None = None


def reach(point: Point) -> None:
    """Say that this place is reached; one comparison in a node that runs.

    Raises:
        OSError: a test wants the disk to fail here.
    """
    if _armed is not None and _armed.point == point:
        _strike(_armed)


def arm(environment: Mapping[str, str]) -> str | None:
    """Arm what the environment asks for, and give that; None, and nothing armed, where it does not allow it."""
    global _armed  # the one switch, off in every node that runs
    wanted = environment.get(FAILPOINT)
    if not wanted or environment.get(MAY_BE_KILLED) != BY_A_TEST:
        _armed = None
        return None
    place, _, action = wanted.partition("=")
    name, _, nth = place.partition(":")
    _armed = _Armed(name, int(nth or 1), action or "kill")
    return wanted


def _strike(armed: _Armed) -> None:
    with armed.lock:
        armed.left -= 1
        strikes = armed.left == 0
    if not strikes:
        return
    action, _, seconds = armed.action.partition(":")
    if action == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif action == "sleep":
        time.sleep(float(seconds))
    else:
        number = {"eio": errno.EIO, "enospc": errno.ENOSPC}[action]
        raise OSError(number, os.strerror(number))
