"""Scanners at their own pace: from the last slice to the report in the PACS, over many studies; what is urgent first.

The whole model, default configuration, images of 512 x 512 at 3 slices a second and scanner: fifty studies of one
scanner, then four scanners at once for ten minutes, of which one is the emergency department's (a ``[[priority]]``),
then studies that wait as a whole and an urgent one that comes last. It takes twenty minutes.
"""

from __future__ import annotations

import statistics
import tempfile
import threading
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks import latency
from benchmarks.raw_sender import RawSender
from benchmarks.small_node import CT, EXPLICIT, Template
from benchmarks.tables import MISSED, at_most, print_table
from ich_node.database import Database, open_database

STUDIES: Final = 50
SCANNERS: Final = 4
MINUTES: Final = 10.0
BACKLOG: Final = 8
TARGET_MEDIAN_S: Final = 2.0
TARGET_P95_S: Final = 4.0
"""Both beyond the time of quiet."""
_URGENT: Final = "CT_ER1"
_ROUTINE: Final = "CT_1"
_PRIORITY: Final = f'[[priority]]\nlevel = 10\nstation_name = "{_URGENT}"\n'


@dataclass(frozen=True, slots=True)
class Study:
    """A study that was sent: when its last slice was answered for, in seconds of the clock."""

    uid: str
    urgent: bool
    answered_at: float


class Scanner(threading.Thread):
    """Sends study after study, and is ready for the next at once."""

    def __init__(self, template: Template, port: int, *, urgent: bool, studies: int, over: float) -> None:
        super().__init__()
        self._template, self._port, self._urgent = template, port, urgent
        self._studies, self._over = studies, over
        self.sent: list[Study] = []
        self.trouble: OSError | None = None

    def run(self) -> None:
        try:
            while len(self.sent) < self._studies and time.monotonic() < self._over:
                self.sent.append(send(self._template, self._port, urgent=self._urgent, pace=latency.SLICES_PER_S))
        except OSError as error:
            self.trouble = error


def send(template: Template, port: int, *, urgent: bool, pace: float | None = None) -> Study:
    """Send a study in an association of its own, at so many slices a second or as fast as it goes.

    Raises:
        OSError: a slice was not answered with success.
    """
    uid, objects = template.fresh()
    with RawSender(port, CT, EXPLICIT) as sender:
        due = time.monotonic()
        for sop_instance_uid, encoded in objects:
            time.sleep(max(0.0, due - time.monotonic()))
            if sender.store(sop_instance_uid, encoded):
                raise OSError("a slice was refused")
            due += 1 / pace if pace else 0.0
        last = time.time()
    return Study(uid, urgent, last)


def measure() -> int:
    """Measure and print the tables; give the number of targets that were missed."""
    if not (latency.MODEL / "manifest.json").exists():
        print(f"scanners: skipped, {latency.MODEL} is missing (make model)")
        return 0
    with tempfile.TemporaryDirectory(prefix="ich-node-bench-") as name, ExitStack() as stack:
        folder = Path(name)
        templates = {
            urgent: Template(folder / station, rows=512, station_name=station)
            for urgent, station in ((False, _ROUTINE), (True, _URGENT))
        }
        _, _, port = latency.start_node(folder, stack, _PRIORITY)
        database = open_database(f"sqlite:///{folder / 'state' / 'ich-node.sqlite'}")
        stack.callback(database.close)
        alone = _of_scanners([Scanner(templates[False], port, urgent=False, studies=STUDIES, over=float("inf"))])
        rows = [_row("one scanner", alone, _delays(folder, database, alone), wanted=True)]
        over = time.monotonic() + 60 * MINUTES
        many = _of_scanners([
            Scanner(templates[not number], port, urgent=not number, studies=10**6, over=over)
            for number in range(SCANNERS)
        ])  # fmt: skip
        for urgent, who in ((False, "routine"), (True, "urgent")):
            some = [one for one in many if one.urgent is urgent]
            delays = _delays(folder, database, some)
            rows.append(_row(f"{SCANNERS} scanners, {MINUTES:g} minutes: {who}", some, delays, wanted=False))
        waiting = [send(templates[False], port, urgent=False) for _ in range(BACKLOG)]
        last = send(templates[True], port, urgent=True)
        rank = _rank(folder, database, [*waiting, last])
    head = ("slices arrive", "studies", "in the PACS", "median s", "95 % s", "longest s", "median", "95 %")
    missed = print_table(
        f"Beyond the 3 s of quiet, {latency.SLICES} slices at {latency.SLICES_PER_S:g} a second and scanner", head, rows
    )
    print(f"\n{BACKLOG} studies at once, then an urgent one: its report was number {rank} of {BACKLOG + 1} in the PACS")
    return missed


def _of_scanners(scanners: Sequence[Scanner]) -> list[Study]:
    for one in scanners:
        one.start()
    for one in scanners:
        one.join()
        if one.trouble is not None:
            raise one.trouble
    return [study for one in scanners for study in one.sent]


def _delays(folder: Path, database: Database, studies: Sequence[Study]) -> list[float]:
    """Seconds beyond the time of quiet until the report of each lay in the PACS, of those whose report did."""
    arrived = [_arrived(folder, database, one) for one in studies]
    return [at - one.answered_at - latency.QUIET_S for one, at in zip(studies, arrived, strict=True) if at is not None]


def _arrived(folder: Path, database: Database, study: Study) -> float | None:
    try:
        delivered = latency.wait_delivered(database, study.uid)
    except RuntimeError:
        return None
    return (folder / "pacs" / study.uid / f"{delivered.deliveries[0].sop_instance_uid}.dcm").stat().st_mtime


def _rank(folder: Path, database: Database, studies: Sequence[Study]) -> int:
    """Tell which of all was the report of the last that was sent."""
    arrived = [_arrived(folder, database, one) or float("inf") for one in studies]
    return 1 + sum(at < arrived[-1] for at in arrived[:-1])


def _row(name: str, studies: Sequence[Study], delays: Sequence[float], *, wanted: bool) -> tuple[object, ...]:
    ordered = sorted(delays)
    median, p95 = statistics.median(ordered), ordered[min(len(ordered) - 1, int(0.95 * len(ordered)))]
    there = f"{len(delays)}" + ("" if len(delays) == len(studies) else f" {MISSED}")
    targets = (at_most(median, TARGET_MEDIAN_S, "s"), at_most(p95, TARGET_P95_S, "s")) if wanted else ("", "")
    return (name, len(studies), there, f"{median:.2f}", f"{p95:.2f}", f"{ordered[-1]:.2f}", *targets)
