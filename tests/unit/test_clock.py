"""The clock is set: what waits moves with it, once, and nothing is closed, stolen, held up or deleted by it."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, update

from ich_node import service
from ich_node.database import Database, DeliveryRow, InstanceRow, OpenAssociationRow, SeriesRow
from ich_node.errors import StorageUnavailable
from ich_node.job_queue import LongestWaits, SendingAssociation, clock, watch_clock
from tests.outbox import outbox
from tests.running import free_port
from tests.unit.queueing import claim, open_queue, receive, received, rows

HOURS = 7200.0
WAITS = LongestWaits(series_s=20.0, retry_s=600.0)


class Killed(BaseException):
    """Nothing of what follows happens, as after kill -9."""


@dataclass
class Machine:
    """Its clock, and the time since its boot."""

    step_s: float = 0.0
    CLOCK_BOOTTIME: int = time.CLOCK_BOOTTIME

    def time(self) -> float:
        return time.time() + self.step_s

    def clock_gettime(self, which: int) -> float:
        return time.clock_gettime(which)


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    machine = Machine()
    monkeypatch.setattr(clock, "time", machine)
    return machine


def watch(database: Database, folder: Path) -> list[float]:
    steps: list[float] = []
    watch_clock(database, folder, WAITS, steps.append)
    return steps


def read(database: Database) -> tuple[Any, Any, Any]:
    return rows(database, SeriesRow)[0], rows(database, InstanceRow)[0], rows(database, OpenAssociationRow)[0]


@pytest.mark.parametrize("step_s", [HOURS, -HOURS], ids=["forth", "back"])
def test_a_series_that_arrives_and_its_leases_move_with_the_clock(
    tmp_path: Path, machine: Machine, step_s: float
) -> None:
    database = open_queue(tmp_path)
    steps = watch(database, tmp_path)
    receive(database, received(1), association=SendingAssociation("a", "owner"))
    claim(database, "me")
    before = read(database)
    machine.step_s = step_s
    after = read(database)
    for name in ("due_at", "first_received_at", "last_received_at", "lease_expires_at"):
        assert getattr(after[0], name) == pytest.approx(getattr(before[0], name) + step_s, abs=1.0)
    assert after[1].received_at == pytest.approx(before[1].received_at + step_s, abs=1.0)
    assert after[2].lease_expires_at == pytest.approx(before[2].lease_expires_at + step_s, abs=1.0)
    assert steps == [pytest.approx(step_s, abs=1.0)]
    database.close()


def test_two_processes_that_see_a_step_move_what_waits_once(tmp_path: Path, machine: Machine) -> None:
    first, second = open_queue(tmp_path), open_queue(tmp_path)
    seen = watch(first, tmp_path), watch(second, tmp_path)
    receive(first, received(1))
    due_at = rows(first, SeriesRow)[0].due_at
    machine.step_s = HOURS
    for database in (first, second, first):
        assert rows(database, SeriesRow)[0].due_at == pytest.approx(due_at + HOURS, abs=1.0)
    assert [len(steps) for steps in seen] == [1, 1]
    first.close()
    second.close()


@pytest.mark.parametrize("ends", [StorageUnavailable("no space left"), Killed()], ids=["disk full", "kill"])
def test_a_step_that_is_cut_while_it_moves_what_waits_moves_it_once(
    tmp_path: Path, machine: Machine, monkeypatch: pytest.MonkeyPatch, ends: BaseException
) -> None:
    database = open_queue(tmp_path)
    watch(database, tmp_path)
    receive(database, received(1))
    before, image = rows(database, SeriesRow)[0], rows(database, InstanceRow)[0]
    machine.step_s = -HOURS
    whole = clock.shift_times

    def cut(connection: Connection, step_s: float) -> None:
        whole(connection, step_s)
        raise ends

    for _ in range(3):
        monkeypatch.setattr(clock, "shift_times", cut)
        with pytest.raises(type(ends)):
            rows(database, SeriesRow)
    database.close()
    monkeypatch.setattr(clock, "shift_times", whole)
    database = open_queue(tmp_path)
    watch(database, tmp_path)
    assert rows(database, SeriesRow)[0].due_at == pytest.approx(before.due_at - HOURS, abs=1.0)
    assert rows(database, InstanceRow)[0].received_at == pytest.approx(image.received_at - HOURS, abs=1.0)
    database.close()


def test_a_step_while_the_node_was_stopped_is_seen_at_its_start(tmp_path: Path, machine: Machine) -> None:
    database = open_queue(tmp_path)
    watch(database, tmp_path)
    receive(database, received(1), wait_s=10.0)
    due_at = rows(database, SeriesRow)[0].due_at
    database.close()
    machine.step_s = -HOURS
    database = open_queue(tmp_path)
    watch(database, tmp_path)
    assert rows(database, SeriesRow)[0].due_at == pytest.approx(due_at - HOURS, abs=1.0)
    database.close()


def test_a_clock_that_is_slewed_moves_nothing(tmp_path: Path, machine: Machine) -> None:
    database = open_queue(tmp_path)
    steps = watch(database, tmp_path)
    receive(database, received(1))
    due_at = rows(database, SeriesRow)[0].due_at
    machine.step_s = 1.5
    assert rows(database, SeriesRow)[0].due_at == due_at
    assert steps == []
    database.close()


def test_after_a_boot_nothing_moves_and_what_is_too_far_ahead_comes_near(
    tmp_path: Path, machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = open_queue(tmp_path)
    watch(database, tmp_path)
    receive(database, received(1))
    receive(database, received(1, study=2), wait_s=HOURS)
    near = rows(database, SeriesRow)[0].due_at
    database.close()
    monkeypatch.setattr(clock, "_boot", lambda: "another")
    machine.step_s = 5.0
    database = open_queue(tmp_path)
    watch(database, tmp_path)
    first, second = rows(database, SeriesRow)
    assert first.due_at == near
    assert second.due_at == pytest.approx(time.time() + 5.0 + WAITS.series_s, abs=30.0)
    database.close()


def test_deliveries_keep_their_pauses_and_their_days(tmp_path: Path, machine: Machine) -> None:
    with outbox(tmp_path / "state", free_port()) as box:
        watch(box.database, tmp_path / "state")
        box.add_study()
        with box.database.writing() as connection:
            connection.execute(update(DeliveryRow).values(commitment_ask_at=DeliveryRow.next_attempt_at + 60.0))
        before = rows(box.database, DeliveryRow)[0]
        machine.step_s = -HOURS
        after = rows(box.database, DeliveryRow)[0]
        assert after.next_attempt_at == pytest.approx(before.next_attempt_at - HOURS, abs=1.0)
        assert after.created_at == pytest.approx(before.created_at - HOURS, abs=1.0)
        assert after.commitment_ask_at == pytest.approx(before.commitment_ask_at - HOURS, abs=1.0)


def test_what_boot_it_is_comes_from_the_unit_where_the_sandbox_hides_it(
    tmp_path: Path, machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = open_queue(tmp_path)
    watch(database, tmp_path)
    receive(database, received(1))
    due_at = rows(database, SeriesRow)[0].due_at
    boot = service.BOOT.read_text().strip()
    monkeypatch.setattr(service, "BOOT", tmp_path / "hidden")
    machine.step_s = HOURS
    monkeypatch.setenv("ICH_NODE_BOOT_ID", boot.replace("-", ""))  # as %b is written
    assert rows(database, SeriesRow)[0].due_at == pytest.approx(due_at + HOURS, abs=1.0)
    database.close()
