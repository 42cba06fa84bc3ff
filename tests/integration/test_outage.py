"""A PACS that is away for three days, in simulated time: the real deliverer, real reports, a real PACS at the end."""

from __future__ import annotations

import hashlib
import sqlite3
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from sqlalchemy import event, func, insert, select

from ich_node import resting
from ich_node.database import DeliveryRow, ResultRow, StudyRow
from ich_node.job_queue import outbox as outbox_queue
from ich_node.pacs import SmallPacs
from ich_node.records import REPORT_KIND
from tests.outbox import Outbox, outbox, save_report
from tests.running import free_port, leaks_a_socket

HOUR_S = 3600.0
STUDY = "2.25.1000000000"
"""Others have as many digits, so that a report of one is a report of another with other digits in it."""


@dataclass
class SimulatedClock:
    """Seconds since 1970, and since the boot, that pass when they are told to."""

    now: float

    def time(self) -> float:
        return self.now

    monotonic = time


@contextmanager
def simulated(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[SimulatedClock, Outbox, int]]:
    """An outbox that is always right about the time, with the delays of a site, and the port of its PACS."""
    clock, port = SimulatedClock(1_800_000_000.0), free_port()
    pauses = {"first_retry_s": 5.0, "longest_retry_s": 600.0, "paused_retry_s": 60.0}
    monkeypatch.setattr(outbox_queue, "time", clock)
    monkeypatch.setattr(resting, "time", clock)
    with outbox(folder, port, delivery=pauses) as box:
        yield clock, box, port


class Reports:
    """Studies with a saved report, made as fast as a simulation needs them."""

    def __init__(self, box: Outbox, port: int) -> None:
        self._box, self._port, self._count = box, port, 0
        self._objects = save_report(box.config.state_directory, STUDY, 1)
        self._bytes = [(box.config.state_directory / one.path).read_bytes() for one in self._objects]

    def add(self, now: float) -> None:
        self._count += 1
        uid = f"2.25.{1_000_000_000 + self._count}"
        with self._box.database.writing() as connection:
            values = {"study_instance_uid": uid, "revision": 1, "triage": "negative", "created_at": now}
            study_id = connection.execute(insert(StudyRow).values(values)).inserted_primary_key[0]
            for preference, (one, content) in enumerate(zip(self._objects, self._bytes, strict=True)):
                connection.execute(insert(ResultRow).values(self._result(study_id, preference, one, content, now)))
            delivery = {
                "study_id": study_id, "revision": 1, "kind": REPORT_KIND, "destination": "pacs-0", "ae_title": "PACS",
                "host": "127.0.0.1", "port": self._port, "state": "PENDING", "next_attempt_at": now, "created_at": now,
            }  # fmt: skip
            connection.execute(insert(DeliveryRow).values(delivery))

    def _result(self, study_id: int, preference: int, one, content: bytes, now: float) -> dict[str, object]:
        uid = f"{one.sop_instance_uid[:-6]}{self._count:06d}"
        path = f"results/{uid}.dcm"
        other = content.replace(one.sop_instance_uid.encode(), uid.encode())
        other = other.replace(STUDY.encode(), f"2.25.{1_000_000_000 + self._count}".encode())
        (self._box.config.state_directory / path).write_bytes(other)
        return {
            "study_id": study_id, "revision": 1, "kind": one.kind, "encoding": one.encoding, "preference": preference,
            "sop_class_uid": one.sop_class_uid, "sop_instance_uid": uid, "path": path, "created_at": now,
            "sha256": hashlib.sha256(other).hexdigest(),
        }  # fmt: skip


def unsent(box: Outbox) -> int:
    with box.database.reading() as connection:
        return connection.execute(select(func.count()).where(DeliveryRow.state != "DELIVERED")).scalar_one()


def next_moment(box: Outbox, clock: SimulatedClock, until: float) -> float:
    """When the deliverer would look at its destination again; until then nothing happens."""
    ends = [rest.until for rest in box.deliverer._resting._rests.values()]
    return min([until, *(end for end in ends if end > clock.now)])


def run_outage(folder: Path, monkeypatch: pytest.MonkeyPatch, reports: int, hours: float) -> tuple[float, int]:
    """Let a PACS be away while reports come; give the seconds from its return to the last report, and the attempts."""
    with simulated(folder / "state", monkeypatch) as (clock, box, port):
        made, began = Reports(box, port), clock.now
        for number in range(reports):
            until = began + hours * HOUR_S * (number + 1) / reports
            while clock.now < until:
                if not box.deliverer.step():
                    clock.now = next_moment(box, clock, until)
            made.add(clock.now)
        assert unsent(box) == reports
        back = clock.now
        with SmallPacs(folder / "pacs", port=port) as pacs:
            sending_s = 0.0
            while unsent(box):
                started = time.perf_counter()
                busy = box.deliverer.step()
                took_s = time.perf_counter() - started
                sending_s += took_s if busy else 0.0
                clock.now += took_s if busy else 5.0
                assert clock.now - back < 0.5 * HOUR_S, f"{unsent(box)} reports are not there after half an hour"
            assert len(pacs.received) == reports
            assert set(pacs.received.values()) == {1}
        with box.database.reading() as connection:
            attempts = connection.execute(select(func.sum(DeliveryRow.attempts))).scalar_one()
        return clock.now - back, int(attempts)


@leaks_a_socket
def test_reports_of_an_outage_are_all_delivered_soon_after_it_and_each_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_outage(tmp_path, monkeypatch, reports=20, hours=0.3)


@leaks_a_socket
@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_2000_reports_of_72_hours_are_all_delivered_half_an_hour_after_the_pacs_is_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    took_s, attempts = run_outage(tmp_path, monkeypatch, reports=2000, hours=72.0)
    sys.stdout.write(
        f"\n72 h without a PACS, 2000 reports: all delivered {took_s:.0f} s after its return, none twice, "
        f"{attempts} attempts\n"
    )


@leaks_a_socket
def test_what_waits_goes_at_once_when_its_destination_answers_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first object that arrives brings the others forward, whose own pauses have become long."""
    with simulated(tmp_path / "state", monkeypatch) as (clock, box, port):
        made = Reports(box, port)
        for _ in range(3):
            made.add(clock.now)
        for _ in range(20):
            box.deliverer.step()
            clock.now += 700.0
        with SmallPacs(tmp_path / "pacs", port=port):
            clock.now -= 640.0  # all rows pause for another ten minutes; the destination for one
            made.add(clock.now)
            while box.deliverer.step():
                pass
            assert unsent(box) == 0


@pytest.mark.slow
def test_many_waiting_reports_cost_an_idle_deliverer_little(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with simulated(tmp_path / "state", monkeypatch) as (clock, box, port):
        with box.database.writing() as connection:
            connection.execute(
                insert(StudyRow),
                [{"study_instance_uid": f"2.25.{n}", "created_at": clock.now, "revision": 1} for n in range(20_000)],
            )
            connection.execute(
                insert(DeliveryRow),
                [
                    {"study_id": n + 1, "revision": 1, "kind": "SR", "destination": "pacs-0", "ae_title": "PACS",
                     "host": "127.0.0.1", "port": port, "state": "PENDING", "next_attempt_at": clock.now,
                     "created_at": clock.now} for n in range(20_000)
                ],
            )  # fmt: skip
        box.deliverer._resting.begin("pacs-0")
        with counting_steps(box) as steps:
            assert not box.deliverer.step()
        sys.stdout.write(f"\n20,000 deliveries that wait: {len(steps)} steps of SQLite a look\n")
        assert 0 < len(steps) < 1000, "none of the rows is read"


@contextmanager
def counting_steps(box: Outbox) -> Iterator[list[None]]:
    """Note every instruction of SQLite's virtual machine."""
    steps: list[None] = []

    def note() -> None:
        steps.append(None)

    def begin(connection: sqlite3.Connection, *_: object) -> None:
        connection.set_progress_handler(note, 1)

    event.listen(box.database.engine, "checkout", begin)
    try:
        yield steps
    finally:
        event.remove(box.database.engine, "checkout", begin)
