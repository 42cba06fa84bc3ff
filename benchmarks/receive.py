"""Receive rate: the node beside dcmtk's storescp and Orthanc, interleaved, sent to by dcmtk's storescu.

Only the node and Orthanc make what they have answered for safe on disk; storescp writes without fsync.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sqlite3
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pydicom import dcmread
from pydicom.uid import generate_uid

from benchmarks.processes import (
    NODE,
    MemoryWatch,
    dcmtk_environment,
    free_port,
    running,
    running_role,
    tree_cpu_seconds,
    wait_for_port,
)
from benchmarks.tables import at_least, at_most, median_and_range, print_table
from ich_node.phantom import PhantomSettings, write_series

RUNS = 3
SERIES = 8
SLICES = 40
TARGET_IMAGES_PER_S = {1: 80.0, 8: 100.0}
TARGET_RESIDENT_MIB = 150.0
_PORT_SILENCE_S = 0.3
_SMALLEST_IMAGE = 500_000
"""Bytes; everything smaller in a folder is an index or a database."""
_STORESCU = "/usr/bin/storescu"  # pynetdicom's script of the same name shadows it on the PATH
STORESCP = "/usr/bin/storescp"
ORTHANC = "/usr/sbin/Orthanc"

_CONFIG = (
    NODE
    + """\
processes = {processes}
"""
)


@dataclass(frozen=True, slots=True)
class Receiving:
    """A receiver that runs."""

    pid: int
    port: int
    folder: Path


@dataclass(frozen=True, slots=True)
class Run:
    """One measurement."""

    images_per_s: float
    mb_per_s: float
    cpu_ms_per_image: float
    peak_mib: float
    correct: bool


def measure() -> None:
    """Measure and print the table."""
    receivers = {"ich-node": run_node, "ich-node, one process": _run_one_process} | (
        {"storescp --fork": run_storescp} if Path(STORESCP).exists() else {}
    )
    receivers |= {"Orthanc": run_orthanc} if Path(ORTHANC).exists() else {}
    if not Path(_STORESCU).exists():
        print("receive: skipped, dcmtk's storescu is missing (package dcmtk)")
        return
    with tempfile.TemporaryDirectory(prefix="ich-node-bench-") as name:
        folder = Path(name)
        sent = make_images(folder / "sent")
        runs: dict[tuple[str, int], list[Run]] = {}
        for _ in range(RUNS):
            for receiver, start in receivers.items():
                for associations in TARGET_IMAGES_PER_S:
                    run = one_run(start, folder / "run", folder / "sent", sent, associations)
                    runs.setdefault((receiver, associations), []).append(run)
    _print(runs, len(sent), statistics.mean(size for _, size in sent.values()))


def make_images(folder: Path) -> dict[str, tuple[str, int]]:
    """Write series of distinct objects; return the hash of the pixels and the size of each by its UID."""
    sent = {}
    first = [dcmread(path) for path in write_series(folder / "template", PhantomSettings(slices=SLICES))]
    shutil.rmtree(folder / "template")
    for number in range(SERIES):
        study, series = generate_uid(), generate_uid()
        (folder / f"series{number}").mkdir()
        for index, image in enumerate(first):
            image.StudyInstanceUID, image.SeriesInstanceUID = study, series
            image.SOPInstanceUID = image.file_meta.MediaStorageSOPInstanceUID = generate_uid()
            path = folder / f"series{number}" / f"{index}.dcm"
            image.save_as(path)
            pixels = hashlib.sha256(image.PixelData).hexdigest()
            sent[str(image.SOPInstanceUID)] = (pixels, path.stat().st_size)
    return sent


def one_run(
    start: Callable[[Path], Iterator[Receiving]],
    folder: Path,
    images: Path,
    sent: dict[str, tuple[str, int]],
    count: int,
) -> Run:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    with contextmanager(start)(folder) as receiving:
        time.sleep(_PORT_SILENCE_S)
        os.sync()  # what earlier runs left unwritten must not be paid for here
        cpu_before = tree_cpu_seconds(receiving.pid)
        with MemoryWatch(receiving.pid) as watch:
            seconds, accepted = _send(images, receiving.port, count)
            time.sleep(_PORT_SILENCE_S)
        cpu, peak = tree_cpu_seconds(receiving.pid) - cpu_before, watch.peak_mib()
    megabytes = sum(size for _, size in sent.values()) / 1e6
    correct = accepted and _stored(receiving.folder) == {uid: pixels for uid, (pixels, _) in sent.items()}
    return Run(len(sent) / seconds, megabytes / seconds, 1000 * cpu / len(sent), peak, correct)


def _send(images: Path, port: int, associations: int) -> tuple[float, bool]:
    series = sorted(images.iterdir())
    began = time.perf_counter()
    senders = [
        subprocess.Popen(
            [_STORESCU, "-aec", "ICH_NODE", "+sd", "127.0.0.1", str(port), *map(str, series[one::associations])],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=dcmtk_environment(),
        )
        for one in range(associations)
    ]  # fmt: skip
    statuses = [sender.wait() for sender in senders]
    return time.perf_counter() - began, not any(statuses)


def _stored(folder: Path) -> dict[str, str]:
    """Return the hash of the pixels of every image in a folder, by its UID."""
    found = {}
    for path in folder.rglob("*"):
        if path.is_file() and path.stat().st_size >= _SMALLEST_IMAGE and path.suffix not in (".sqlite", ".sqlite-wal"):
            image = dcmread(path)
            found[str(image.SOPInstanceUID)] = hashlib.sha256(image.PixelData).hexdigest()
    return found


# --------------------------------------------------------------------------------------- receivers


def run_node(folder: Path, processes: int = 0) -> Iterator[Receiving]:
    port, config = free_port(), folder / "ich-node.toml"
    config.write_text(_CONFIG.format(port=port, state=folder / "state", processes=processes))
    (log := folder / "node.log").touch()
    with running_role("receive", config, log) as pid:
        yield Receiving(pid, port, folder / "state" / "spool")
    _check_rows(folder / "state")


def _run_one_process(folder: Path) -> Iterator[Receiving]:
    yield from run_node(folder, processes=1)


def _check_rows(state: Path) -> None:
    """Compare each row's hash with its file: what was answered for must be what lies on disk."""
    database = sqlite3.connect(state / "ich-node.sqlite")
    for path, sha256 in database.execute("select path, sha256 from instance"):
        part10 = (state / path).read_bytes()
        group_length = int.from_bytes(part10[140:144], "little")
        if hashlib.sha256(part10[144 + group_length :]).hexdigest() != sha256:
            raise RuntimeError(f"{path} differs from its row")
    database.close()


def run_storescp(folder: Path, *options: str | Path) -> Iterator[Receiving]:
    port = free_port()
    (folder / "images").mkdir()
    command = [STORESCP, "--fork", "-pdu", "131072", *options, "-od", folder / "images", str(port)]
    with running(command, folder / "storescp.log", dcmtk_environment()) as pid:
        wait_for_port(port)
        yield Receiving(pid, port, folder / "images")


def run_orthanc(folder: Path, **more: object) -> Iterator[Receiving]:
    port, images = free_port(), folder / "images"
    settings = {
        "DicomPort": port,
        "DicomAlwaysAllowStore": True,
        "DicomThreadsCount": 8,
        "HttpServerEnabled": False,
        "StorageDirectory": str(images),
        "IndexDirectory": str(folder),
        "Plugins": [],
        "SyncStorageArea": True,
    } | more
    (folder / "orthanc.json").write_text(json.dumps(settings))
    with running([ORTHANC, folder / "orthanc.json"], folder / "orthanc.log", dcmtk_environment()) as pid:
        wait_for_port(port)
        yield Receiving(pid, port, images)


# ------------------------------------------------------------------------------------------- table


def _print(runs: dict[tuple[str, int], list[Run]], images: int, bytes_per_image: float) -> None:
    rows = []
    for (receiver, associations), measured in runs.items():
        rate = statistics.median(one.images_per_s for one in measured)
        peak = max(one.peak_mib for one in measured)
        ours = receiver.startswith("ich-node")
        rows.append(
            (
                receiver,
                associations,
                median_and_range([one.images_per_s for one in measured]),
                at_least(rate, TARGET_IMAGES_PER_S[associations], "") if ours else "",
                f"{statistics.median(one.mb_per_s for one in measured):.0f}",
                median_and_range([one.cpu_ms_per_image for one in measured]),
                f"{peak:.0f}",
                at_most(peak, TARGET_RESIDENT_MIB, "") if ours else "",
                "yes" if all(one.correct for one in measured) else "NO",
            )
        )
    title = f"Receive: {images} CT images of {bytes_per_image / 1e3:.0f} kB, TCP_NODELAY=1, {RUNS} runs, interleaved"
    head = ("receiver", "associations", "images/s", "target", "MB/s", "CPU ms/image", "peak MiB", "target", "all right")
    print_table(title, head, rows)
