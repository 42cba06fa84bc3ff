"""What those saw who speak with a receiver that is killed: its senders, and somebody from another address.

All that was seen between the start of one receiver and the start of the next belongs to what killed the one.
"""

from __future__ import annotations

import itertools
import socket
import time
from bisect import bisect_right
from collections import Counter, defaultdict
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock

import psutil
from pynetdicom import AE, evt

from tests.torture.peers import ANSWERS, SEEN, Notes, read_notes

ECHOES = "echoes.jsonl"
_PAUSE_S = 0.2
_A_MIB = 1024 * 1024


def echo_without_end(port: int, witness: Path) -> None:
    """Call the receiver from another address, again and again, and note each answer."""
    notes = Notes(witness / ECHOES)
    entity = AE(ae_title="ANOTHER")
    entity.connection_timeout = entity.acse_timeout = entity.dimse_timeout = entity.network_timeout = 60
    entity.add_requested_context("1.2.840.10008.1.1")

    def without_delay(event: evt.Event) -> None:
        event.assoc.dul.socket.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    while True:
        with suppress(OSError, RuntimeError, ValueError):  # the receiver is being killed
            association = entity.associate(
                "127.0.0.1", port, ae_title="ICH_NODE", bind_address=("127.0.0.2", 0),
                evt_handlers=[(evt.EVT_CONN_OPEN, without_delay)],
            )  # fmt: skip
            if association.is_established:
                if association.send_c_echo().get("Status") == 0:
                    notes.add(at=time.time())
                association.abort()  # a release would reach the places that a sender's release is to reach
        time.sleep(_PAUSE_S)


def peak_mib(pid: int) -> float:
    """Give the largest resident memory that a process had, and those it started; the largest of them."""
    found = 0.0
    with suppress(psutil.Error, OSError, StopIteration):
        process = psutil.Process(pid)
        for one in [process, *process.children()]:
            lines = Path(f"/proc/{one.pid}/status").read_text().splitlines()
            line = next(line for line in lines if line.startswith("VmHWM"))
            found = max(found, int(line.split()[1]) * 1024 / _A_MIB)
    return found


@dataclass
class Seen:
    """By strike, of all nodes together."""

    by_senders: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    outage_s: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    peak_mib: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    lock: Lock = field(default_factory=Lock)

    def note_memory(self, label: str, mib: float) -> None:
        with self.lock:
            self.peak_mib[label] = max(self.peak_mib[label], mib)

    def add(self, witness: Path, receivers: list[tuple[float, str]]) -> None:
        """Add what was noted in one node's life.

        Args:
            receivers: when each receiver was started (seconds since 1970, growing), and what killed it.
        """
        began = [at for at, _ in receivers]

        def receiver(at: float) -> str:
            return receivers[max(0, bisect_right(began, at) - 1)][1]

        echoes = [one["at"] for one in read_notes(witness / ECHOES)]
        with self.lock:
            for one in read_notes(witness / ANSWERS):
                said = "success" if one["status"] == 0 else f"0x{one['status']:04X}"
                self.by_senders[receiver(one["at"])][said] += 1
            for one in read_notes(witness / SEEN):
                self.by_senders[receiver(one["at"])][one["saw"]] += 1
            for before, after in itertools.pairwise(echoes):
                label = receiver(before)
                self.outage_s[label] = max(self.outage_s[label], after - before)

    def columns(self, label: str) -> str:
        """Write the end of a row of the table; empty for what is no strike at a receiver."""
        if not label.startswith("receive") or label not in self.by_senders:
            return ""
        saw = ", ".join(f"{number} {what}" for what, number in self.by_senders[label].most_common())
        return f"{self.peak_mib[label]:9.0f} {self.outage_s[label]:14.1f} s  {saw}"


HEADINGS = f"{'peak MiB':>9} {'longest outage':>16}  sender saw"
