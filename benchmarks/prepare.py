"""Preparing training data: from uncompressed DICOM in the layout of RSNA 2019 to shards, in one process."""

from __future__ import annotations

import tempfile
import time
from itertools import count
from pathlib import Path

from benchmarks.tables import at_least, print_table
from ich_node.phantom import PhantomSettings, make_series
from ich_node.records import HEMORRHAGE_CLASSES
from ich_node.training.prepare import PrepareSettings, find_rsna, prepare
from ich_node.training.prepare.plan import make_plan, shard_tasks
from ich_node.training.prepare.shard import make_shard
from ich_node.training.prepare.watch import RSNA_SLICES, duration
from ich_node.training.prepared import SHARDS

HEADS = 5
SLICES_PER_HEAD = 32
COPIES = 3
TARGET_PER_S = 40.0


def measure() -> None:
    """Measure and print the table."""
    with tempfile.TemporaryDirectory(prefix="ich-node-bench-") as name:
        folder = Path(name)
        files = _write_rsna(folder / "rsna")
        began = time.perf_counter()
        prepare([find_rsna(folder / "rsna")], folder / "prepared", PrepareSettings(processes=1), lambda _: None)
        whole = files / (time.perf_counter() - began)
        shards = _measure_shards(folder)
    rows = [
        ("shards of one process", f"{shards:.1f}", at_least(shards, TARGET_PER_S, "slices/s"), _whole_set(shards)),
        ("with its start, table and folds", f"{whole:.1f}", "", ""),
    ]
    title = f"ich-train prepare: {files} uncompressed slices of 512 x 512 in the layout of RSNA 2019"
    print_table(title, ("", "slices/s", "target", f"all {RSNA_SLICES:,} slices on 2, 16 cores"), rows)


def _measure_shards(folder: Path) -> float:
    plan = make_plan([find_rsna(folder / "rsna")], slices_per_shard=160)
    (folder / "again" / SHARDS).mkdir(parents=True)
    began = time.perf_counter()
    slices = sum(make_shard(task) for task in shard_tasks(plan, folder / "again", seconds_per_item=30.0))
    return slices / (time.perf_counter() - began)


def _whole_set(per_s: float) -> str:
    return ", ".join(duration(RSNA_SLICES / per_s / cores) for cores in (2, 16))


def _write_rsna(folder: Path) -> int:
    images = folder / "stage_2_train"
    images.mkdir(parents=True)
    numbers, lines = count(), ["ID,Label"]
    for seed in range(HEADS):
        settings = PhantomSettings(slices=SLICES_PER_HEAD, seed=seed, patient_id=f"ID_{seed}", lesion="subdural")
        for instance in make_series(settings) * COPIES:
            image_id = f"ID_{next(numbers):09x}"
            instance.save_as(images / f"{image_id}.dcm", enforce_file_format=True)
            lines += [f"{image_id}_{one},0" for one in HEMORRHAGE_CLASSES]
    (folder / "stage_2_train.csv").write_text("\n".join(lines) + "\n")
    return HEADS * SLICES_PER_HEAD * COPIES
