"""From the last slice of a study to its report in the PACS, with the default configuration and the whole model.

The roles run as processes of their own, like the PACS; the slices come in one association.
"""

from __future__ import annotations

import shutil
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from pydicom import dcmread
from pynetdicom import AE, evt

from benchmarks.processes import (
    NODE,
    TreeMemory,
    free_port,
    running,
    running_role,
    tree_cpu_seconds,
    tree_memory,
    wait_for_port,
)
from benchmarks.tables import at_most, median_and_range, print_table
from ich_node.database import Database, open_database
from ich_node.pacs.small_pacs import send_without_delay
from ich_node.phantom import PhantomSettings, write_series
from ich_node.queries import StudyStatus, node_status

MODEL = Path("models/ich-irv2")
SLICES = 30
RUNS = 3
SLICES_PER_S = 3.0
TARGET_S = 10.0
TARGET_WITHOUTQUIET_S = 3.0
TARGET_RECEIVER_MIB = 150.0
TARGET_WORKER_MIB = 2.5 * 1024
QUIET_S = 3.0
"""The default of [series] quiet_s."""
_LONGEST_S = 120.0
_IDLE_S = 5.0

CONFIG = (
    NODE
    + """\
[model]
directory = "{model}"
[[destination]]
name = "pacs"
ae_title = "PACS"
host = "127.0.0.1"
port = {pacs_port}
"""
)


@dataclass(frozen=True, slots=True)
class Run:
    """One study: seconds after its last slice was answered for, and what they were spent on."""

    in_pacs_s: float
    parts: dict[str, float]


class PeakMemory:
    """Looks at the memory of processes and their children every so often, and keeps the most of each."""

    def __init__(self, pids: dict[str, int]) -> None:
        self._pids = pids
        self.peaks = {role: TreeMemory(0.0, 0.0) for role in pids}

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Look until the block ends."""
        stop = threading.Event()
        watch = threading.Thread(target=self._watch, args=(stop,))
        watch.start()
        try:
            yield
        finally:
            stop.set()
            watch.join()

    def _watch(self, stop: threading.Event) -> None:
        while not stop.wait(0.5):
            for role, pid in self._pids.items():
                now, peak = tree_memory(pid), self.peaks[role]
                self.peaks[role] = TreeMemory(max(now.rss, peak.rss), max(now.pss, peak.pss))


def measure() -> None:
    """Measure and print the tables."""
    if not (MODEL / "manifest.json").exists():
        print(f"latency: skipped, {MODEL} is missing (make model)")
        return
    with tempfile.TemporaryDirectory(prefix="ich-node-bench-") as name, ExitStack() as stack:
        folder = Path(name)
        ready, pids, port = start_node(folder, stack)
        database = open_database(f"sqlite:///{folder / 'state' / 'ich-node.sqlite'}")
        stack.callback(database.close)
        idle = _idle_cpu(pids)
        memory = PeakMemory(pids)
        with memory.watching():
            runs = {
                "3 slices/s": [_one_study(folder, port, database, 1 / SLICES_PER_S) for _ in range(RUNS)],
                "all at once": [_one_study(folder, port, database, 0.0) for _ in range(RUNS)],
            }
        _print_latency(runs)
        _print_roles(ready, idle, memory.peaks)


def start_node(folder: Path, stack: ExitStack, sections: str = "") -> tuple[dict[str, float], dict[str, int], int]:
    port, pacs_port = free_port(), free_port()
    pacs = [sys.executable, "-m", "ich_node", "pacs", "--port", str(pacs_port), "--directory", folder / "pacs"]
    stack.enter_context(running(pacs, folder / "pacs.log"))
    wait_for_port(pacs_port)
    config = folder / "ich-node.toml"
    places = {"port": port, "state": folder / "state", "model": MODEL.resolve(), "pacs_port": pacs_port}
    config.write_text(sections + CONFIG.format(**places))
    with running_role("work", config, folder / "first.log"):
        pass  # converts the network for OpenVINO, once in the life of a node
    ready, pids = {}, {}
    for role in ("receive", "work", "deliver"):
        began = time.perf_counter()
        pids[role] = stack.enter_context(running_role(role, config, folder / f"{role}.log"))
        ready[role] = time.perf_counter() - began
    return ready, pids, port


def _idle_cpu(pids: dict[str, int]) -> dict[str, float]:
    """Percent of one core that each role takes while there is nothing to do."""
    time.sleep(1.0)
    before = {role: tree_cpu_seconds(pid) for role, pid in pids.items()}
    time.sleep(_IDLE_S)
    return {role: 100 * (tree_cpu_seconds(pid) - before[role]) / _IDLE_S for role, pid in pids.items()}


# ----------------------------------------------------------------------------------------- one study


def _one_study(folder: Path, port: int, database: Database, interval_s: float) -> Run:
    files = write_series(folder / "sent", PhantomSettings(lesion="subdural", slices=SLICES))
    uid = str(dcmread(files[0], stop_before_pixels=True).StudyInstanceUID)
    last_sent = send(files, port, interval_s)
    study = wait_delivered(database, uid)
    stored = folder / "pacs" / uid / f"{study.deliveries[0].sop_instance_uid}.dcm"
    in_pacs = stored.stat().st_mtime
    if dcmread(stored).StudyInstanceUID != uid:
        raise RuntimeError("the PACS holds another report")
    shutil.rmtree(folder / "sent")
    return Run(in_pacs - last_sent, _parts(study, last_sent, in_pacs))


def send(files: list[Path], port: int, interval_s: float) -> float:
    """Send in one association; return when the last slice was answered for."""
    entity = AE(ae_title="SCANNER")
    image = dcmread(files[0], stop_before_pixels=True)
    entity.add_requested_context(image.SOPClassUID, image.file_meta.TransferSyntaxUID)
    association = entity.associate(
        "127.0.0.1", port, ae_title="ICH_NODE", evt_handlers=[(evt.EVT_CONN_OPEN, send_without_delay)]
    )
    began = time.monotonic()
    for number, path in enumerate(files):
        time.sleep(max(0.0, began + number * interval_s - time.monotonic()))
        if association.send_c_store(path).Status != 0:
            raise RuntimeError("the node did not take a slice")
    last = time.time()
    association.release()
    return last


def wait_delivered(database: Database, uid: str) -> StudyStatus:
    deadline = time.monotonic() + _LONGEST_S
    while time.monotonic() < deadline:
        for study in node_status(database, uid=uid).studies:
            if study.deliveries and all(one.state == "DELIVERED" for one in study.deliveries):
                return study
        time.sleep(0.2)
    raise RuntimeError(f"no report in {_LONGEST_S:g} s")


def _parts(study: StudyStatus, last_sent: float, in_pacs: float) -> dict[str, float]:
    steps = study.series[0].steps or {}
    return {
        "score and close": steps["series closed"] - last_sent - QUIET_S,
        "conclude": steps["analysed"] - steps["series closed"],
        "report": steps["report saved"] - steps["analysed"],
        "deliver": in_pacs - steps["report saved"],
    }


# -------------------------------------------------------------------------------------------- tables


def _print_latency(runs: dict[str, list[Run]]) -> None:
    rows = []
    for arrival, measured in runs.items():
        total = [one.in_pacs_s for one in measured]
        rest = [value - QUIET_S for value in total]
        wanted = at_most(statistics.median(rest), TARGET_WITHOUTQUIET_S, "s") if "slices/s" in arrival else ""
        parts = [median_and_range([one.parts[part] for one in measured], 2) for part in measured[0].parts]
        total_cell, rest_cell = median_and_range(total, 2), median_and_range(rest, 2)
        rows.append((arrival, total_cell, at_most(statistics.median(total), TARGET_S, "s"), rest_cell, wanted, *parts))
    title = f"Last slice to report in the PACS: {SLICES} slices, Inception-ResNet-V2 at 299 px, {RUNS} studies each; s"
    parts = tuple(next(iter(runs.values()))[0].parts)
    print_table(title, ("slices arrive", "in the PACS", "target", "beyond the 3 s of quiet", "target", *parts), rows)


def _print_roles(ready: dict[str, float], idle: dict[str, float], peaks: dict[str, TreeMemory]) -> None:
    wanted = {"receive": TARGET_RECEIVER_MIB, "work": TARGET_WORKER_MIB}
    rows = [
        (
            role,
            f"{ready[role]:.1f}",
            f"{idle[role]:.1f}",
            f"{peaks[role].rss:.0f}",
            f"{peaks[role].pss:.0f}",
            at_most(peaks[role].rss, wanted[role], "") if role in wanted else "",
        )
        for role in ready
    ]
    head = ("role", "ready after s", "idle CPU % of a core", "peak RSS MiB", "peak PSS MiB", "target RSS")
    print_table("Roles: each with its children", head, rows)
