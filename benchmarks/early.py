"""How long until it is decided to alert early, of a thin series that waits: with the fast pass, and as slices came.

Receivers and workers run as processes of their own, with the default configuration and the whole model. A worker is
stopped while the series is sent, and goes on then. The slabs that were scored, and the slices that were read, do not
depend on what else the machine has to do.
"""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from pydicom import dcmread
from sqlalchemy import ColumnElement, func, select

from benchmarks.large_heads import EXTENT_MM, write_thin_series
from benchmarks.latency import CONFIG, MODEL
from benchmarks.processes import free_port, running_role
from benchmarks.tables import print_table
from ich_node.database import InstanceRow, PlaneRow, StudyRow, open_database
from ich_node.pacs import send_study
from ich_node.phantom import LESIONS, PhantomSettings, draw_volume
from ich_node.phantom.series import stored_values
from ich_node.records import InstanceState

SLICES: Final = 320
ROWS: Final = 512
PLACES: Final = (0.2, 0.5, 0.8)
"""Middle of the lesion, as a share of the way from the first slice to the last."""
LESION_MM: Final = 25.0
_DRAWN: Final = 30
_LONGEST_S: Final = 300.0
_ALERTING: Final = """\
[alert]
fast_pass = {fast_pass}
[[alert_hl7]]
name = "nobody"
host = "127.0.0.1"
port = {nobody}
[[alert_rule]]
tell = ["nobody"]
"""


def measure() -> None:
    """Measure and print the table."""
    if not (MODEL / "manifest.json").exists():
        print(f"early: skipped, {MODEL} is missing (make model)")
        return
    clear, bleeding = _draw(None), _draw(LESIONS)
    planes = {place: _with_lesion(clear, bleeding, place) for place in PLACES}
    with tempfile.TemporaryDirectory(prefix="ich-node-bench-") as name, ExitStack() as stack:
        sites = {fast: _Site(Path(name) / fast, fast, stack) for fast in ("false", "true")}
        measured = [(place, fast, site.look(drawn)) for place, drawn in planes.items() for fast, site in sites.items()]
    rows = [
        (f"{100 * place:.0f} %", "yes" if fast == "true" else "no", one.slabs, one.slices,
         f"{one.decided_s:.1f}", f"{one.saved_s:.1f}")
        for place, fast, one in measured
    ]  # fmt: skip
    head = ("lesion after", "fast pass", "slabs scored", "slices read", "decided after s", "result saved after s")
    title = (
        f"Early decision: {SLICES} slices of {ROWS} x {ROWS} that wait, {EXTENT_MM:g} mm, a lesion of {LESION_MM:g} mm"
    )
    print_table(title, head, rows)


@dataclass(frozen=True, slots=True)
class _Look:
    decided_s: float
    saved_s: float
    """Both from when the worker goes on."""
    slabs: int
    slices: int


class _Site:
    """A receiver and a worker."""

    def __init__(self, folder: Path, fast_pass: str, stack: ExitStack) -> None:
        folder.mkdir()
        self._folder, self._port = folder, free_port()
        config = folder / "ich-node.toml"
        usual = CONFIG.format(port=self._port, state=folder / "state", model=MODEL.resolve(), pacs_port=free_port())
        config.write_text(usual + _ALERTING.format(fast_pass=fast_pass, nobody=free_port()))
        stack.enter_context(running_role("receive", config, folder / "receive.log"))
        self._worker = stack.enter_context(running_role("work", config, folder / "work.log"))
        self._database = open_database(f"sqlite:///{folder / 'state' / 'ich-node.sqlite'}")
        stack.callback(self._database.close)

    def look(self, planes: NDArray[np.uint16]) -> _Look:
        """Send a series to a worker that is stopped, let it go on, and look what it had done when it decided."""
        files = write_thin_series(self._folder / "sent", SLICES, planes)
        uid = str(dcmread(files[0], stop_before_pixels=True).StudyInstanceUID)
        with _stopped(self._worker):
            send_study(files, "127.0.0.1", self._port, "ICH_NODE")
        began = time.monotonic()
        decided = self._wait(uid, StudyRow.early_series_id.is_not(None)) - began
        slabs, slices = self._count(PlaneRow), self._count(InstanceRow, InstanceRow.state == InstanceState.DECODED)
        saved = self._wait(uid, StudyRow.revision > 0) - began
        shutil.rmtree(self._folder / "sent")
        return _Look(decided, saved, slabs, slices)

    def _count(self, table: type[PlaneRow | InstanceRow], *conditions: ColumnElement[bool]) -> int:
        """Count what there is of the newest series."""
        newest = select(func.max(table.series_id)).scalar_subquery()
        with self._database.reading() as connection:
            wanted = select(func.count()).select_from(table).where(table.series_id == newest, *conditions)
            return int(connection.execute(wanted).scalar_one())

    def _wait(self, uid: str, condition: ColumnElement[bool]) -> float:
        wanted = select(StudyRow.id).where(StudyRow.study_instance_uid == uid, condition)
        deadline = time.monotonic() + _LONGEST_S
        while time.monotonic() < deadline:
            with self._database.reading() as connection:
                if connection.execute(wanted).first():
                    return time.monotonic()
            time.sleep(0.02)
        raise RuntimeError(f"not in {_LONGEST_S:g} s: {condition}")


@contextmanager
def _stopped(pid: int) -> Iterator[None]:
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def _with_lesion(clear: NDArray[np.uint16], bleeding: NDArray[np.uint16], place: float) -> NDArray[np.uint16]:
    """Put the plane that shows most blood at another place, as high as wanted."""
    clear, shows = clear.copy(), int(np.argmax((clear != bleeding).sum(axis=(1, 2))))
    middle, half = round(place * _DRAWN), round(LESION_MM / EXTENT_MM * _DRAWN) // 2
    clear[max(0, middle - half) : middle + half + 1] = bleeding[shows]
    return clear


def _draw(lesion: tuple[str, ...] | None) -> NDArray[np.uint16]:
    settings = PhantomSettings(lesion=lesion, slices=_DRAWN, rows=ROWS, slice_spacing_mm=EXTENT_MM / _DRAWN)
    return stored_values(draw_volume(settings))
