"""``make fuzz``: atheris on what reads bytes, a fuzzer that knows DIMSE on a receiver, and a table of what was seen."""

from __future__ import annotations

import argparse
import math
import re
import subprocess
import sys
import tempfile
import time
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests.fuzz import seeds
from tests.fuzz.dimse_fuzzer import Outcome, fuzz, node_to_fuzz
from tests.fuzz.targets import TARGETS

_PARALLEL = 2
_SHORTEST_S = 5
_SLOWEST_S = 25
_MOST_MIB = 1024
"""Of a process that is fuzzed: pydicom with its dictionary, instrumented, has 300."""


@dataclass(frozen=True, slots=True)
class Run:
    """What one target did."""

    name: str
    cases: int
    crashes: int
    hangs: int
    peak_mib: int
    log: Path


def main() -> int:
    parser = argparse.ArgumentParser(prog="make fuzz", description=__doc__)
    parser.add_argument("--minutes", type=float, default=15.0)
    parser.add_argument("--seed", type=int, default=int(time.time()), help="of the DIMSE fuzzer")
    parser.add_argument("--keep", type=Path, default=Path("var/fuzz"), help="folder for what was found")
    options = parser.parse_args()
    seconds = options.minutes * 60
    options.keep.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ich-node-fuzz-")))
        seeds.write(folder / "corpus")
        atheris = stack.enter_context(_Atheris(folder, options.keep, seconds))
        node = stack.enter_context(node_to_fuzz(folder))
        outcome = fuzz(node, options.seed, seconds)
        runs = atheris.wait()
        (options.keep / "receive.log").write_bytes(node.log("receive").read_bytes())
    _print(runs, outcome, options.minutes, options.seed)
    failed = not outcome.is_good or any(one.crashes or one.hangs for one in runs)
    return 1 if failed else 0


class _Atheris:
    """The targets, two at a time, each for its share of the time that is left."""

    def __init__(self, folder: Path, keep: Path, seconds: float) -> None:
        self._folder, self._keep = folder, keep
        self._over = time.monotonic() + seconds
        self._waiting = len(TARGETS)
        self._running: list[subprocess.Popen[bytes]] = []
        self._pool = ThreadPoolExecutor(_PARALLEL)
        self._runs: list[Future[Run]] = []

    def __enter__(self) -> _Atheris:
        self._runs = [self._pool.submit(self._run, name) for name in TARGETS]
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)
        for process in self._running:
            process.kill()
        self._pool.shutdown()

    def wait(self) -> list[Run]:
        return [one.result() for one in self._runs]

    def _run(self, name: str) -> Run:
        turns = math.ceil(self._waiting / _PARALLEL)
        self._waiting -= 1
        share_s = max(_SHORTEST_S, int((self._over - time.monotonic()) / turns))
        command = [
            *(sys.executable, "-m", "tests.fuzz.one_target", name, f"-max_total_time={share_s}"),
            *(f"-timeout={_SLOWEST_S}", f"-rss_limit_mb={_MOST_MIB}", "-print_final_stats=1", "-max_len=70000"),
            *(f"-artifact_prefix={self._keep}/{name}-", str(self._folder / "corpus" / name)),
        ]
        with (self._keep / f"{name}.log").open("wb") as log:
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        self._running.append(process)
        return self._read(name, process.wait())

    def _read(self, name: str, status: int) -> Run:
        log = self._keep / f"{name}.log"
        text = log.read_text(errors="replace")

        def figure(what: str) -> int:
            found = re.findall(rf"{what}:?\s+(\d+)", text)
            return int(found[-1]) if found else 0

        hangs = text.count("ERROR: libFuzzer: timeout")
        crashed = int(status != 0 and not hangs)
        return Run(name, figure("stat::number_of_executed_units"), crashed, hangs, figure("stat::peak_rss_mb"), log)


def _print(runs: list[Run], outcome: Outcome, minutes: float, seed: int) -> None:
    table = Table(title=f"Fuzzing, {minutes:g} minutes, seed {seed}")
    for column in ("Target", "Cases", "Crashes", "Hangs", "Success for what is not whole", "Longest echo", "Peak MiB"):
        table.add_column(column)
    for one in runs:
        table.add_row(one.name, str(one.cases), str(one.crashes), str(one.hangs), "", "", str(one.peak_mib))
    for name, count in outcome.cases.items():
        hangs = sum(one.startswith(f"{name} ") for one in outcome.hangs)
        successes = sum(one.startswith(f"{name} ") for one in outcome.successes)
        table.add_row(f"DIMSE: {name}", str(count), "", str(hangs), str(successes), "", "")
    figures = (
        sum(outcome.cases.values()),
        outcome.crashes + outcome.unexpected,
        len(outcome.hangs),
        len(outcome.successes),
    )
    table.add_row("DIMSE: all", *map(str, figures), f"{outcome.longest_echo_s:.2f} s", f"{outcome.peak_mib:.0f}")
    console = Console(width=120)
    console.print(table)
    console.print(f"echoes from another address: {outcome.echoes}, failed: {outcome.failed_echoes}")
    console.print(f"threads before and after: {outcome.threads}; open files: {outcome.files}", highlight=False)
    console.print(f"files in the spool: {outcome.left_behind}")
    for what in (*outcome.hangs[:10], *outcome.successes[:10]):
        console.print(f"to look at: {what}", markup=False)


if __name__ == "__main__":
    sys.exit(main())
