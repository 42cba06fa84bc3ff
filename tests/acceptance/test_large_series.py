"""Series of many slices and frames: concluded once, every slice in a plane, in bounded memory."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
from pydicom import dcmread

from benchmarks.large_heads import draw_planes, write_enhanced_ct, write_thin_series
from ich_node.pacs import SmallPacs
from tests.running import NodeProcesses, settings, storescu

WORKER_MIB = 2560


@dataclass
class Peak:
    """The most memory that a process and its children held together, MiB."""

    mib: float = 0.0


def as_single_slices(folder: Path, count: int) -> list[Path]:
    return write_thin_series(folder, count, draw_planes(512))


def as_one_object(folder: Path, count: int) -> list[Path]:
    return [write_enhanced_ct(folder, count, draw_planes(512))]


@pytest.mark.slow
@pytest.mark.parametrize(("write", "count"), [(as_single_slices, 600), (as_one_object, 1000)])
def test_a_large_series_is_concluded_once_with_every_slice_in_a_plane_and_bounded_memory(
    tmp_path: Path, tiny_bundle: Path, write: Callable[[Path, int], list[Path]], count: int
) -> None:
    files = write(tmp_path / "sent", count)
    uid = str(dcmread(files[0], stop_before_pixels=True).StudyInstanceUID)
    with SmallPacs(tmp_path / "pacs") as pacs:
        values = settings(tmp_path / "state", tiny_bundle, destinations=[("pacs", pacs.port)],
                          node={"log_level": "DEBUG"}, series={"quiet_s": 1.0, "max_wait_s": 20.0})  # fmt: skip
        with NodeProcesses(tmp_path, values) as node, watching(node.processes["work"].pid) as peak:
            assert storescu(files, node.port).returncode == 0
            study = node.wait_settled(uid, 300)
            concluded = node.log("work").read_text().count('"series concluded"')

        (series,) = study.series
        whole = ("CONCLUDED", len(files), 0, True)
        assert (series.state, series.slices, series.unreadable, series.complete) == whole
        assert (concluded, study.revision, len(list((pacs.directory / uid).glob("*.dcm")))) == (1, 1, 1)
        assert in_planes(series.finding or {}) == count
        assert series.planes in (30, 31), "slabs of 5 mm of a head of 150 mm"
        assert 100 < peak.mib <= WORKER_MIB


@contextmanager
def watching(pid: int) -> Iterator[Peak]:
    """Look at the memory of a process and its children until the block ends."""
    peak, stop = Peak(), threading.Event()
    thread = threading.Thread(target=_watch, args=(psutil.Process(pid), peak, stop))
    thread.start()
    try:
        yield peak
    finally:
        stop.set()
        thread.join()


def _watch(process: psutil.Process, peak: Peak, stop: threading.Event) -> None:
    while not stop.wait(0.2):
        peak.mib = max(peak.mib, _resident_mib(process))


def _resident_mib(process: psutil.Process) -> float:
    total = 0
    for one in [process, *process.children(recursive=True)]:
        try:
            total += one.memory_info().rss
        except psutil.NoSuchProcess:
            continue
    return total / 2**20


def in_planes(finding: dict[str, list[dict[str, list[object]]]]) -> int:
    """Count different slices and frames in the planes of a finding."""
    return len({json.dumps(member) for one in finding["slices"] for member in one.get("members") or [one]})
