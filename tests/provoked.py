"""What the suite provoked, told as a table at its end: how often, what was lost, what the sender and others saw."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import astuple, dataclass, field
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from tests.fuzz.wire import echo

if TYPE_CHECKING:  # it brings torch, and conftest.py imports this module
    from tests.running import NodeProcesses

_NAME = "provoked"
_HEAD = ("Provoked", "Times", "Lost", "The sender saw", "Others waited", "Peak MiB")
_EVERY_S = 0.25
_BYSTANDER = "127.0.0.200"
_MIB = 1024 * 1024


@dataclass(frozen=True)
class Provoked:
    """One line of the table."""

    what: str
    times: int
    lost: int
    sender_saw: str
    others_waited_s: float | None = None
    peak_mib: float | None = None


def tell(request: pytest.FixtureRequest, provoked: Provoked) -> None:
    """Have a line in the table at the end, whichever process runs the test."""
    request.node.user_properties.append((_NAME, astuple(provoked)))


@dataclass
class Watch:
    """Sends a receiver C-ECHO from another address, and looks at its memory, while a test does its worst."""

    longest_s: float = 0.0
    failed: int = 0
    peak_mib: float = 0.0
    _stop: threading.Event = field(default_factory=threading.Event)

    @classmethod
    @contextmanager
    def over(cls, node: NodeProcesses) -> Iterator[Watch]:
        """Watch until the end."""
        watch = cls()
        thread = threading.Thread(target=watch._run, args=(node,), daemon=True)
        thread.start()
        try:
            yield watch
        finally:
            watch._stop.set()
            thread.join(60)

    def _run(self, node: NodeProcesses) -> None:
        receiver = psutil.Process(node.processes["receive"].pid)
        while not self._stop.is_set():
            began = time.monotonic()
            self.failed += echo(node.port, _BYSTANDER) != 0
            self.longest_s = max(self.longest_s, time.monotonic() - began)
            with suppress(psutil.Error):
                family = [receiver, *receiver.children(recursive=True)]
                self.peak_mib = max(self.peak_mib, *(one.memory_info().rss / _MIB for one in family))
            self._stop.wait(_EVERY_S)


def table_of(reports: Iterable[Any]) -> list[str]:
    """Write the lines that tests told, as a table; empty where none did."""
    told = {tuple(value) for one in reports for name, value in one.user_properties if name == _NAME}
    if not told:
        return []
    rows = [_HEAD, *(_cells(Provoked(*one)) for one in sorted(told))]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEAD))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return [lines[0], "  ".join("-" * width for width in widths), *lines[1:]]


def _cells(one: Provoked) -> tuple[str, ...]:
    waited = "" if one.others_waited_s is None else f"{one.others_waited_s:.2f} s"
    peak = "" if one.peak_mib is None else f"{one.peak_mib:.0f}"
    return one.what, str(one.times), str(one.lost), one.sender_saw, waited, peak
