"""Thin series and Enhanced CT objects: seconds per slice, which must not grow with their number, and memory.

Receiver and worker run as processes of their own, with the default configuration and the whole model.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from pydicom import dcmread
from sqlalchemy import select

from benchmarks.large_heads import draw_planes, write_enhanced_ct, write_thin_series
from benchmarks.latency import CONFIG, MODEL, TARGET_WORKER_MIB, PeakMemory
from benchmarks.processes import free_port, running_role, tree_cpu_seconds
from benchmarks.tables import at_most, print_table
from ich_node.database import Database, PlaneRow, SeriesRow, StudyRow, open_database
from ich_node.pacs import send_study
from ich_node.queries import SeriesStatus, node_status

THIN = (150, 300, 600)
ENHANCED = (250, 500, 1000)
ROWS = 512
_LONGEST_S = 900.0
_COLUMNS = ("sent as", "slices", "slabs", "sent in s", "concluded after s", "s per slice", "CPU s per slice",
            "peak RSS MiB", "peak PSS MiB", "target RSS", "slices in slabs", "complete")  # fmt: skip


@dataclass(frozen=True, slots=True)
class Site:
    """A running receiver, and what a worker needs to start."""

    folder: Path
    config: Path
    port: int
    database: Database


def measure() -> None:
    """Measure and print the table."""
    if not (MODEL / "manifest.json").exists():
        print(f"large: skipped, {MODEL} is missing (make model)")
        return
    planes = draw_planes(ROWS)
    with tempfile.TemporaryDirectory(prefix="ich-node-bench-") as name, _site(Path(name)) as site:
        sent = site.folder / "sent"
        rows = [_measured(site, "CT images", count, write_thin_series(sent, count, planes)) for count in THIN]
        rows += [
            _measured(site, "one Enhanced CT", count, [write_enhanced_ct(sent, count, planes)]) for count in ENHANCED
        ]
    print_table(f"Large series: {ROWS} x {ROWS}, Inception-ResNet-V2 at 299 px, 150 mm each", _COLUMNS, rows)


def _measured(site: Site, kind: str, count: int, files: list[Path]) -> tuple[object, ...]:
    """Let a fresh worker do one series, so that each has a peak of its own."""
    uid = str(dcmread(files[0], stop_before_pixels=True).StudyInstanceUID)
    with running_role("work", site.config, site.folder / f"{kind} {count}.log") as worker:
        memory = PeakMemory({"work": worker})
        cpu_before = tree_cpu_seconds(worker)
        with memory.watching():
            began = time.time()
            if send_study(files, "127.0.0.1", site.port, "ICH_NODE") != len(files):
                raise RuntimeError("the node did not take every object")
            sent_s = time.time() - began
            series = _wait_concluded(site.database, uid)
        cpu_s = tree_cpu_seconds(worker) - cpu_before
    shutil.rmtree(site.folder / "sent")
    whole_s = (series.steps or {})["report saved"] - began
    peak = memory.peaks["work"]
    return (
        kind, count, series.planes, f"{sent_s:.1f}", f"{whole_s:.1f}", f"{whole_s / count:.3f}",
        f"{cpu_s / count:.3f}", f"{peak.rss:.0f}", f"{peak.pss:.0f}", at_most(peak.rss, TARGET_WORKER_MIB, ""),
        f"{_slices_in_planes(site.database, uid)}", "yes" if series.complete else "NO",
    )  # fmt: skip


@contextmanager
def _site(folder: Path) -> Iterator[Site]:
    port = free_port()
    config = folder / "ich-node.toml"
    config.write_text(CONFIG.format(port=port, state=folder / "state", model=MODEL.resolve(), pacs_port=free_port()))
    with ExitStack() as stack:
        stack.enter_context(running_role("receive", config, folder / "receive.log"))
        with running_role("work", config, folder / "first.log"):
            pass  # converts the network for OpenVINO, once in the life of a node
        database = open_database(f"sqlite:///{folder / 'state' / 'ich-node.sqlite'}")
        stack.callback(database.close)
        yield Site(folder, config, port, database)


def _wait_concluded(database: Database, uid: str) -> SeriesStatus:
    deadline = time.monotonic() + _LONGEST_S
    while time.monotonic() < deadline:
        (series,) = node_status(database, uid=uid).studies[0].series
        if series.state == "CONCLUDED":
            return series
        if series.state not in ("RECEIVING", "COMPLETE"):
            raise RuntimeError(f"{series.state}: {series.why}")
        time.sleep(0.5)
    raise RuntimeError(f"not concluded in {_LONGEST_S:g} s")


def _slices_in_planes(database: Database, uid: str) -> int:
    """Count the planes' different members: an untrained model's finding names no slices."""
    with database.reading() as connection:
        members = connection.execute(
            select(PlaneRow.members)
            .join(SeriesRow, SeriesRow.id == PlaneRow.series_id)
            .join(StudyRow, StudyRow.id == SeriesRow.study_id)
            .where(StudyRow.study_instance_uid == uid)
        ).scalars()
        return len({(member[0], member[1]) for plane in members for member in plane})
