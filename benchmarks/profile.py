"""Where the processor time of a whole study goes: py-spy looks at every role while studies come, are read and reported.

Only what runs is counted, not what waits. A sample belongs to the innermost part of the program that is on its stack.
The stacks are kept in ``var/bench``, in a form of which flame graphs are drawn.
"""

from __future__ import annotations

import shutil
import subprocess
import sysconfig
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

from pydicom import dcmread

from benchmarks import latency
from benchmarks.results import FOLDER
from benchmarks.tables import print_table
from ich_node.database import open_database
from ich_node.phantom import PhantomSettings, write_series

STUDIES: Final = 8
_RATE: Final = 200
"""Looks a second."""
_SPY: Final = Path(sysconfig.get_path("scripts")) / "py-spy"
_PARTS: Final = (
    ("the network", ("ich_node/model/",)),
    ("windows and crop", ("ich_node/windowing",)),
    ("decoding", ("ich_node/decode/",)),
    ("planes", ("ich_node/plane",)),
    ("pictures of key slices", ("ich_node/pictures", "ich_node/report/drawing", "ich_node/saved_maps")),
    ("report", ("ich_node/report/", "highdicom/")),
    ("database", ("ich_node/job_queue/", "ich_node/database/", "ich_node/queries/")),
    ("files made durable", ("ich_node/durable", "ich_node/receive/spool")),
    ("header and hash of what comes", ("ich_node/receive/data_set", "ich_node/receive/entry", "receive/incoming")),
    ("audit trail", ("ich_node/audit/",)),
    ("log", ("ich_node/log",)),
    ("DICOM network", ("pynetdicom/",)),
    ("imports", ("<frozen importlib",)),
)
_WAITS: Final = (
    "(threading.py",
    "(selectors.py",
    "pebble/",
    "concurrent/futures/",
    "schedulers/",
    "_recv (",
    "receive/processes",
)
"""Innermost frames of threads that wait: on a busy machine they are now and then taken for running."""


def measure() -> None:
    """Measure and print the table."""
    if not _SPY.exists() or not (latency.MODEL / "manifest.json").exists():
        print("profile: skipped, py-spy or the model is missing (make setup model)")
        return
    with tempfile.TemporaryDirectory(prefix="ich-node-bench-") as name, ExitStack() as stack:
        folder = Path(name)
        _, pids, port = latency.start_node(folder, stack)
        database = open_database(f"sqlite:///{folder / 'state' / 'ich-node.sqlite'}")
        stack.callback(database.close)
        with ExitStack() as spies:
            found = {role: spies.enter_context(_looking(pid, folder / f"{role}.raw")) for role, pid in pids.items()}
            time.sleep(2)
            for _ in range(STUDIES):
                files = write_series(folder / "sent", PhantomSettings(lesion="subdural", slices=latency.SLICES))
                uid = str(dcmread(files[0], stop_before_pixels=True).StudyInstanceUID)
                latency.send(files, port, 1 / latency.SLICES_PER_S)
                latency.wait_delivered(database, uid)
                shutil.rmtree(folder / "sent")
        counts = {role: _parts_of(path) for role, path in found.items()}
    per_study = 1000 / _RATE / STUDIES
    whole = sum(sum(one.values()) for one in counts.values())
    rows = [
        (role, part, f"{looks * per_study:.0f}", f"{100 * looks / whole:.1f} %")
        for role, one in counts.items()
        for part, looks in one.most_common()
        if looks * per_study >= 1
    ]
    rows.append(("all", "", f"{whole * per_study:.0f}", "100 %"))
    slices, pace = latency.SLICES, latency.SLICES_PER_S
    title = f"Processor time of a study of {slices} slices at {pace:g} a second, mean of {STUDIES}"
    print_table(title, ("role", "part", "ms", "share"), rows)


@contextmanager
def _looking(pid: int, path: Path) -> Iterator[Path]:
    command = [_SPY, "record", "--subprocesses", "--rate", str(_RATE), "--format", "raw", "--output", path,
               "--pid", str(pid)]  # fmt: skip
    spy = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield path
    finally:
        spy.send_signal(2)
        spy.wait(60)
        FOLDER.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, FOLDER / f"profile-{path.name}")


def _parts_of(path: Path) -> Counter[str]:
    """Add up the looks at each part; a line is ``outermost;...;innermost looks``."""
    counts: Counter[str] = Counter()
    for line in path.read_text().splitlines():
        stack, looks = line.rsplit(" ", 1)
        frames = stack.split(";")
        if not any(place in frames[-1] for place in _WAITS):
            counts[_part(frames)] += int(looks)
    return counts


def _part(frames: list[str]) -> str:
    for frame in reversed(frames):
        for name, places in _PARTS:
            if any(place in frame for place in places):
                return name
    return "the rest"
