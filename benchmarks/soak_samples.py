"""Samples of a soak, kept as CSV, and what they say: which memory grows, what is open, what waits, what was lost."""

from __future__ import annotations

import csv
import json
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from statistics import median, mode
from typing import Any, Final, Protocol

import numpy as np
import psutil

from benchmarks.processes import MEBIBYTE
from benchmarks.tables import MISSED, at_most, print_table

TARGET_MIB_PER_H: Final = 1.0
TARGET_WAL_MIB: Final = 64.0
_WARM_UP: Final = 0.2
"""Part of the run before which nothing is judged."""
_LAST: Final = 2 / 3
"""Where the last third of the run begins: its slope is not judged, but tells a leak from what warms up for longer."""
_JUDGED_FROM_H: Final = 0.5
"""A slope over less is noise."""


class Answers(Protocol):
    """What the senders saw."""

    @property
    def success(self) -> int: ...

    studies: int


@dataclass(frozen=True, slots=True)
class Sample:
    """One moment; MiB of the files, and numbers."""

    seconds: float
    wal_mib: float
    database_mib: float
    spool_files: int
    series_waiting: int
    deliveries_waiting: int
    rows: int
    delivered: int
    answered: int
    studies: int


@dataclass(frozen=True, slots=True)
class RoleSample:
    """One role and its children at one moment."""

    seconds: float
    role: str
    rss_mib: float
    pss_mib: float
    descriptors: int
    threads: int
    processes: int


@dataclass(frozen=True, slots=True)
class ProcessSample:
    """One process at one moment, so that growth can be laid at its door."""

    seconds: float
    role: str
    pid: int
    rss_mib: float
    anonymous_mib: float
    """What it has itself, without the files that it reads and maps."""


class Sampler:
    """Looks at the processes and the state folder, and appends to the files of a soak."""

    def __init__(self, folder: Path, pids: dict[str, int], state: Path, sent: Answers) -> None:
        self.folder = folder
        self._pids = pids
        self._state = state
        self._sent = sent
        self._began = time.monotonic()
        for name, kind in (("samples.csv", Sample), ("roles.csv", RoleSample), ("processes.csv", ProcessSample)):
            with (folder / name).open("w", newline="") as file:
                csv.writer(file).writerow(field.name for field in fields(kind))

    def sample(self) -> Sample:
        """Take one sample of everything, append it, and return what is not of one role."""
        now = time.monotonic() - self._began
        found = self._look(now)
        _append(self.folder / "samples.csv", found)
        for role, pid in self._pids.items():
            ours, each = _look_at(now, role, pid)
            _append(self.folder / "roles.csv", ours)
            for one in each:
                _append(self.folder / "processes.csv", one)
        return found

    def _look(self, now: float) -> Sample:
        answered, studies = self._sent.success, self._sent.studies
        file = self._state / "ich-node.sqlite"
        with closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True, timeout=60)) as database:

            def count(question: str) -> int:
                return int(database.execute(question).fetchone()[0])

            return Sample(
                seconds=round(now, 1),
                wal_mib=_mib(file.with_name(file.name + "-wal")),
                database_mib=_mib(file),
                spool_files=sum(1 for _ in (self._state / "spool").glob("*/*.dcm")),
                series_waiting=count("select count(*) from series where state in ('RECEIVING', 'COMPLETE')"),
                deliveries_waiting=count("select count(*) from delivery where state in ('PENDING', 'SENDING')"),
                rows=count("select count(*) from instance"),
                delivered=count("select count(*) from delivery where state in ('DELIVERED', 'COMMITTED')"),
                answered=answered,
                studies=studies,
            )


def _look_at(now: float, role: str, pid: int) -> tuple[RoleSample, list[ProcessSample]]:
    rss = pss = descriptors = threads = count = 0
    each = []
    parent = psutil.Process(pid)
    for process in [parent, *parent.children(recursive=True)]:
        with suppress(psutil.NoSuchProcess):
            full = process.memory_full_info()
            rss, pss, count = rss + full.rss, pss + full.pss, count + 1
            descriptors, threads = descriptors + process.num_fds(), threads + process.num_threads()
            mib = (round(full.rss / MEBIBYTE, 2), round((full.rss - full.shared) / MEBIBYTE, 2))
            each.append(ProcessSample(round(now, 1), role, process.pid, *mib))
    mib = (round(rss / MEBIBYTE, 2), round(pss / MEBIBYTE, 2))
    return RoleSample(round(now, 1), role, *mib, descriptors, threads, count), each


def _mib(path: Path) -> float:
    try:
        return round(path.stat().st_size / MEBIBYTE, 2)
    except FileNotFoundError:
        return 0.0


def _append(path: Path, sample: Sample | RoleSample | ProcessSample) -> None:
    with path.open("a", newline="") as file:
        csv.writer(file).writerow(asdict(sample).values())


class Samples:
    """What a soak has written so far."""

    def __init__(self, folder: Path) -> None:
        self.whole = _read(folder / "samples.csv")
        self.roles = _read(folder / "roles.csv")
        each = folder / "processes.csv"
        self.processes = _read(each) if each.exists() else []  # soaks of before have none
        end = folder / "end.json"
        self.end: dict[str, Any] | None = json.loads(end.read_text()) if end.exists() else None


def _read(path: Path) -> list[dict[str, Any]]:
    with path.open(newline="") as file:
        return [{key: _number(value) for key, value in row.items()} for row in csv.DictReader(file)]


def _number(value: str) -> float | str:
    try:
        return float(value)
    except ValueError:
        return value


def slope_per_h(seconds: list[float], values: list[float]) -> float:
    """Fit a line; give how much it rises in an hour."""
    if len(seconds) < 3:
        return 0.0
    return float(np.polyfit(np.array(seconds) / 3600, np.array(values), 1)[0])


def print_report(samples: Samples) -> int:
    """Print what the samples say; return 1 where a target was missed, or the end shows a loss or nothing sent."""
    if not samples.whole:
        print("no samples yet")
        return 1
    hours = samples.whole[-1]["seconds"] / 3600
    missed = print_table(
        f"Soak, {hours:.2f} h: processes, after the first {_warm_from(hours) / 60:.0f} minutes",
        (
            "role",
            "processes",
            "RSS MiB first",
            "last",
            "most",
            "slope MiB/h",
            "target",
            "last third MiB/h",
            "PSS MiB most",
            "descriptors",
            "threads",
        ),
        [_role_row(samples, role, hours) for role in dict.fromkeys(one["role"] for one in samples.roles)],
    )
    print_table(
        "Each process that lasted, from then on: memory of its own (anonymous)",
        ("role", "pid", "MiB first", "last", "most", "slope MiB/h", "last third MiB/h"),
        list(_process_rows(samples, hours)),
    )
    last, most_wal = samples.whole[-1], max(one["wal_mib"] for one in samples.whole)
    missed += print_table(
        "Queue and files",
        ("answered 0x0000", "rows", "studies", "reports delivered", "series waiting: last, most",
         "deliveries: last, most", "WAL MiB: most", "target", "database MiB", "files in the spool: last, most"),
        [(
            f"{last['answered']:.0f}", f"{last['rows']:.0f}", f"{last['studies']:.0f}", f"{last['delivered']:.0f}",
            _last_and_most(samples, "series_waiting"), _last_and_most(samples, "deliveries_waiting"),
            f"{most_wal:.1f}", at_most(most_wal, TARGET_WAL_MIB, ""), f"{last['database_mib']:.1f}",
            _last_and_most(samples, "spool_files"),
        )],
    )  # fmt: skip
    if samples.end is not None:
        missed += _print_end(samples.end)
    return int(missed > 0)


def _warm_from(hours: float) -> float:
    """Say from which second on the run is judged."""
    return _WARM_UP * 3600 * hours


def _role_row(samples: Samples, role: str, hours: float) -> tuple[object, ...]:
    all_of_it = [one for one in samples.roles if one["role"] == role]
    warm = [one for one in all_of_it if one["seconds"] >= _warm_from(hours)] or all_of_it
    last = [one for one in all_of_it if one["seconds"] >= _LAST * 3600 * hours] or all_of_it
    slope = _growth(warm)
    is_judged = hours >= _JUDGED_FROM_H
    judged = at_most(slope, TARGET_MIB_PER_H, "") if is_judged else "too short to judge"
    return (
        role, _range(warm, "processes"), f"{warm[0]['rss_mib']:.0f}", f"{warm[-1]['rss_mib']:.0f}",
        f"{max(one['rss_mib'] for one in all_of_it):.0f}", f"{slope:+.2f}", judged, f"{_growth(last):+.2f}",
        f"{max(one['pss_mib'] for one in all_of_it):.0f}",
        *(_range(warm, key) + f" {MISSED}" * (is_judged and _grows(warm, key)) for key in ("descriptors", "threads")),
    )  # fmt: skip


def _grows(samples: list[dict[str, Any]], key: str) -> bool:
    """Say whether the last third has more than the first, by their medians: what comes and goes is no growth."""
    values = [one[key] for one in samples]
    third = max(1, len(values) // 3)
    return median(values[-third:]) > median(values[:third])


def _process_rows(samples: Samples, hours: float) -> Iterator[tuple[object, ...]]:
    warm_from, last_from, end = _warm_from(hours), _LAST * 3600 * hours, samples.whole[-1]["seconds"]
    by_pid: dict[float, list[dict[str, Any]]] = {}
    for one in samples.processes:
        by_pid.setdefault(one["pid"], []).append(one)
    for pid, all_of_it in by_pid.items():
        if all_of_it[0]["seconds"] > warm_from or all_of_it[-1]["seconds"] < end:
            continue
        warm = [one for one in all_of_it if one["seconds"] >= warm_from]
        own, slopes = [one["anonymous_mib"] for one in warm], []
        for since in (warm_from, last_from):
            part = [one for one in warm if one["seconds"] >= since]
            slopes.append(slope_per_h([one["seconds"] for one in part], [one["anonymous_mib"] for one in part]))
        figures = (f"{own[0]:.1f}", f"{own[-1]:.1f}", f"{max(own):.1f}", *(f"{slope:+.2f}" for slope in slopes))
        yield (warm[0]["role"], f"{pid:.0f}", *figures)


def _growth(samples: list[dict[str, Any]]) -> float:
    """By resident size: the proportional one also rises where another process ends that shared a library.

    Of samples with the usual number of processes: a child of seconds is no growth (a look for drift, a self-test).
    """
    usual = mode(one["processes"] for one in samples)
    alike = [one for one in samples if one["processes"] == usual]
    return slope_per_h([one["seconds"] for one in alike], [one["rss_mib"] for one in alike])


def _range(samples: list[dict[str, Any]], key: str) -> str:
    values = [one[key] for one in samples]
    return f"{values[0]:.0f} to {values[-1]:.0f} ({min(values):.0f}-{max(values):.0f})"


def _last_and_most(samples: Samples, key: str) -> str:
    values = [one[key] for one in samples.whole]
    return f"{values[-1]:.0f}, {max(values):.0f}"


def _print_end(end: dict[str, Any]) -> int:
    lost = end["answered"] - end["rows"]
    others = {answer: number for answer, number in end["answers"].items() if answer != "0x0000"}
    unreported = end["studies"] - end["delivered"]
    nothing = not end["answered"]
    bad = nothing or lost > 0 or bool(others) or unreported != 0 or end["in_pacs"] < end["delivered"]
    return print_table(
        "What was lost",
        ("images sent", "answered 0x0000", "other answers", "lost", "studies", "reports delivered", "in the PACS", ""),
        [(
            sum(end["answers"].values()), end["answered"], json.dumps(others) if others else "none", lost,
            end["studies"], end["delivered"], end["in_pacs"], MISSED if bad else "all there",
        )],
    )  # fmt: skip
