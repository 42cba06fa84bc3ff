"""Starts: from the call of each role to the line in which it says that it is ready, on a state folder that is there.

The model is converted and compiled once before, as in a node that ran before.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path
from typing import Final

from benchmarks.latency import CONFIG, MODEL
from benchmarks.processes import free_port, running_role
from benchmarks.tables import at_most, median_and_range, print_table

STARTS: Final = 5
TARGET_S: Final = {"receive": 1.0, "work": 5.0}


def measure() -> int:
    """Measure and print the table; give the number of targets that were missed."""
    if not (MODEL / "manifest.json").exists():
        print(f"ready: skipped, {MODEL} is missing (make model)")
        return 0
    with tempfile.TemporaryDirectory(prefix="ich-node-bench-") as name:
        folder = Path(name)
        config = folder / "ich-node.toml"
        places = {"port": free_port(), "state": folder / "state", "model": MODEL.resolve(), "pacs_port": free_port()}
        config.write_text(CONFIG.format(**places))
        first = {role: _start(role, config, folder / f"{role}-first.log") for role in ("receive", "work", "deliver")}
        again: dict[str, list[float]] = {role: [] for role in first}
        for number in range(STARTS):
            for role, seconds in again.items():
                seconds.append(_start(role, config, folder / f"{role}-{number}.log"))
    rows = []
    for role, seconds in again.items():
        wanted = at_most(statistics.median(seconds), TARGET_S[role], "s") if role in TARGET_S else ""
        rows.append((role, f"{first[role]:.1f}", median_and_range(seconds, 2), wanted))
    return print_table(f"Ready after a start, s; {STARTS} starts", ("role", "the very first", "again", "target"), rows)


def _start(role: str, config: Path, log: Path) -> float:
    began = time.perf_counter()
    log.touch()
    with running_role(role, config, log):
        return time.perf_counter() - began
