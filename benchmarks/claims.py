"""Claiming work: how long one claim takes with 10^3 to 10^6 instances, and how many are made by 1, 4 and 16 workers."""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import insert, text, update

from benchmarks.tables import at_most, print_table
from ich_node.database import Database, SeriesRow, StudyRow, open_database, prepare_database
from ich_node.job_queue import claim_series
from ich_node.records import InstanceState, SeriesState
from tests.postgresql import programs, running_server

SIZES = (1_000, 10_000, 100_000, 1_000_000)
WORKERS = (1, 4, 16)
TARGET_MS = 5.0
_SLICES = 32
_TIMES = 100
_SECONDS = 5.0
_BACKLOG = 20_000
"""Series that wait: no worker gets to their end."""
_ROOT = "1.2.826.0.1.3680043.8.498"

Making = Callable[[str], str]


def measure() -> int:
    """Measure and print the tables; give the number of targets that were missed."""
    with ExitStack() as stack:
        kinds = list(_kinds(stack))
        times = [row for kind, make in kinds for row in _times(kind, make)]
        missed = print_table(
            f"Claiming one series, {_SLICES} slices each: milliseconds, {_TIMES} claims",
            ("database", "instances", "waiting", "median ms", "longest ms", "target"), times,
        )  # fmt: skip
        rates = [row for kind, make in kinds for row in _rates(kind, make)]
        head = ("database", "workers", "claims/s", "claimed twice")
        return missed + print_table(f"Workers that claim as fast as they can, {_SECONDS:.0f} s", head, rates)


def _kinds(stack: ExitStack) -> Iterator[tuple[str, Making]]:
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ich-node-bench-")))
    yield "SQLite", lambda name: f"sqlite:///{folder / name}.sqlite"
    if programs() is None:
        print("PostgreSQL is not installed (Debian: postgresql): left out")
        return
    server = stack.enter_context(running_server(flushed=True))
    yield "PostgreSQL", server.create


def _times(kind: str, make: Making) -> Iterator[tuple[object, ...]]:
    for size in SIZES:
        for waiting in ("all", "20 series"):
            series = size // _SLICES
            with _filled(
                make(f"times_{size}_{waiting[:2].strip()}"), series, series if waiting == "all" else 20
            ) as database:
                taken = [_claim_ms(database, f"worker {number}") for number in range(_TIMES)]
            median = statistics.median(taken)
            target = at_most(median, TARGET_MS, "ms")
            yield kind, f"{size:,}", waiting, f"{median:.2f}", f"{max(taken):.1f}", target


def _claim_ms(database: Database, owner: str) -> float:
    began = time.perf_counter()
    jobs = claim_series(database, owner, lease_s=600, max_wait_s=20, limit=1)
    taken = 1000 * (time.perf_counter() - began)
    with database.writing() as connection:  # so that the next finds as much
        done = {"lease_owner": None, "lease_expires_at": None}
        connection.execute(update(SeriesRow).where(SeriesRow.id.in_([job.id for job in jobs])).values(done))
    assert jobs
    return taken


# ------------------------------------------------------------------------------------------- many workers


def _rates(kind: str, make: Making) -> Iterator[tuple[object, ...]]:
    for workers in WORKERS:
        url = make(f"r{workers}")
        with _filled(url, _BACKLOG, _BACKLOG):
            claimed = _claim_at_once(url, workers)
        yield kind, workers, f"{len(claimed) / _SECONDS:,.0f}", len(claimed) - len(set(claimed))


def _claim_at_once(url: str, workers: int) -> list[int]:
    command = [sys.executable, "-m", "benchmarks.claims", url]
    processes = [
        subprocess.Popen([*command, f"w{number}"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for number in range(workers)
    ]
    for process in processes:  # each says that it is there; then all begin
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    return [int(word) for process in processes for word in process.communicate()[0].split()]


def _work(url: str, name: str) -> None:
    """Claim, one series after the other, until the time is over: a process of its own."""
    database = open_database(url)
    with database.reading():
        pass
    print("ready", flush=True)
    sys.stdin.readline()
    end, claimed = time.monotonic() + _SECONDS, []
    while time.monotonic() < end:
        # an owner of its own each time: a worker is handed what it already holds
        owner = f"{name} {len(claimed)}"
        claimed += [job.id for job in claim_series(database, owner, lease_s=600, max_wait_s=20, limit=1)]
    database.close()
    print(*claimed)


# ------------------------------------------------------------------------------------------ what is there


@contextmanager
def _filled(url: str, series: int, waiting: int) -> Iterator[Database]:
    """A database with so many series, of which the last ones wait to be scored and the others are concluded."""
    database = open_database(url)
    with tempfile.TemporaryDirectory(prefix="ich-node-bench-") as name:
        prepare_database(database, Path(name))
    numbers = range(1, series + 1)
    with database.writing() as connection:
        connection.execute(insert(StudyRow), [_study(number) for number in numbers])
        connection.execute(insert(SeriesRow), [_series(one, is_open=one > series - waiting) for one in numbers])
        connection.execute(text(_ADD_SLICES))
    with database.writing() as connection:
        connection.execute(text("ANALYZE"))  # as autovacuum does, and SQLite never
    yield database
    database.close()


def _study(number: int) -> dict[str, Any]:
    return {"id": number, "study_instance_uid": f"{_ROOT}.{number}", "created_at": 1e9 + number}


def _series(number: int, *, is_open: bool) -> dict[str, Any]:
    at = 1e9 + number
    return {
        "id": number, "study_id": number, "series_instance_uid": f"{_ROOT}.{number}.1", "modality": "CT",
        "state": SeriesState.RECEIVING if is_open else SeriesState.CONCLUDED, "due_at": at, "first_received_at": at,
        "last_received_at": at + 20, "calling_ae_title": "SENDER", "remote_address": "10.0.0.1",
    }  # fmt: skip


_ADD_SLICES = f"""
    INSERT INTO instance (series_id, sop_instance_uid, sop_class_uid, transfer_syntax_uid, sha256, size_bytes, path,
        state, current, received_at)
    WITH RECURSIVE slice(number) AS (SELECT 1 UNION ALL SELECT number + 1 FROM slice WHERE number < {_SLICES})
    SELECT series.id, series_instance_uid || '.' || number, '1.2.840.10008.5.1.4.1.1.2', '1.2.840.10008.1.2.1',
        'hash ' || series_instance_uid || '.' || number, 526000, 'spool/00/' || series.id || '-' || number || '.dcm',
        CASE state WHEN '{SeriesState.RECEIVING}' THEN '{InstanceState.RECEIVED}' ELSE '{InstanceState.DECODED}' END,
        true, first_received_at
    FROM series CROSS JOIN slice"""


if __name__ == "__main__":
    _work(sys.argv[1], sys.argv[2])
