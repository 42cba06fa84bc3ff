"""When a series has as many slices as ever, by the queue alone."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ich_node.database import Database, SeriesMeasureRow, SeriesRow
from ich_node.job_queue import SendingAssociation, forget_association, release_association, save_read, waiting_instances
from ich_node.job_queue.habits import SERIES_OF_A_HABIT, close_by_habit
from ich_node.records import InstanceState, ReadInstance, Triage
from tests.unit.concluding import conclude
from tests.unit.queueing import change, claim, copied_queue, receive, received, rows
from tests.unit.test_drift_measures import facts

SENDER = SendingAssociation("sender", "receiver")
KERNEL, THICKNESS_MM = "H31s", 5.0
SLICES, NEW = 3, 99


@pytest.fixture
def database(migrated_database: Path, tmp_path: Path) -> Iterator[Database]:
    database = copied_queue(migrated_database, tmp_path)
    yield database
    database.close()


def know(database: Database, series: int = SERIES_OF_A_HABIT, slices: int = SLICES, **changes: Any) -> None:
    """Series of the sender that ended."""
    for study in range(1, series + 1):
        receive(database, *(received(number, study=study) for number in range(1, slices)))
        assert conclude(database, Triage.NEGATIVE, study=study, number=slices)
    known = {"station_name": "", "convolution_kernel": KERNEL, "slice_thickness_mm": THICKNESS_MM} | changes
    with database.writing() as connection:
        for row in connection.execute(SeriesRow.__table__.select().order_by(SeriesRow.id)).all():
            values = known | {"series_id": row.id, "measured_at": time.time()}
            connection.execute(SeriesMeasureRow.__table__.insert().values(values))


def send(database: Database, slices: int = SLICES, **changes: Any) -> None:
    arrived = [received(number, study=NEW, **changes) for number in range(1, slices + 1)]
    receive(database, *arrived, association=SENDER)


def read(database: Database, kernel: str = KERNEL, thickness_mm: float = THICKNESS_MM) -> None:
    """Read what waits, as the worker does."""
    (job,) = [one for one in claim(database, "me") if one.study_instance_uid == f"1.2.{NEW}"]
    fact = replace(facts(1, kernel), slice_thickness_mm=thickness_mm)
    done = [ReadInstance(one.id, InstanceState.DECODED, (fact,)) for one in waiting_instances(database, job.id, 9)]
    assert save_read(database, job, "me", done, lease_s=60)


def release(database: Database, *, habits: bool = True) -> list[int]:
    return release_association(database, SENDER, quiet_s=3, max_wait_s=20, habits=habits)


def newest(database: Database) -> Any:
    return rows(database, SeriesRow)[-1]


def close(database: Database) -> bool:
    return close_by_habit(database, newest(database).id, max_wait_s=20)


def test_a_release_closes_a_series_that_has_as_many_slices_as_ever(database: Database) -> None:
    know(database)
    send(database)
    read(database)
    assert release(database) == [newest(database).id]
    assert newest(database).due_at <= time.time()


def test_what_is_read_after_the_release_closes_it_too(database: Database) -> None:
    know(database)
    send(database)
    assert release(database) == [], "of which kind it is, nobody knows yet"
    assert newest(database).due_at > time.time()
    read(database)
    assert close(database)
    assert newest(database).due_at <= time.time()
    assert not close(database), "it is due"


@pytest.mark.parametrize(
    ("known", "this", "reading"),
    [
        ({"series": SERIES_OF_A_HABIT - 1}, {}, {}),
        ({"slices": SLICES + 1}, {}, {}),
        ({}, {"slices": SLICES + 1}, {}),
        ({}, {"calling_ae_title": "CT2"}, {}),
        ({}, {"remote_address": "10.0.0.2"}, {}),
        ({}, {"station_name": "ER"}, {}),
        ({}, {"modality": "MR"}, {}),
        ({}, {}, {"kernel": "H60s"}),
        ({}, {}, {"thickness_mm": 1.0}),
        ({"slice_thickness_mm": None}, {}, {}),
    ],
    ids=["too few series", "they had more", "it has more", "sender", "address", "station", "modality", "kernel",
         "thickness", "thickness not known"],
)  # fmt: skip
def test_what_is_not_known_to_be_whole_waits(
    database: Database, known: dict[str, Any], this: dict[str, Any], reading: dict[str, Any]
) -> None:
    know(database, **known)
    send(database, **this)
    read(database, **reading)
    assert release(database) == []
    assert not close(database)
    assert newest(database).due_at == pytest.approx(newest(database).last_received_at + 3, abs=0.001)


@pytest.mark.parametrize(("late_for", "closes"), [(1, True), (2, False), (SERIES_OF_A_HABIT + 1, False)])
def test_a_late_slice_ends_the_habit_until_eight_series_are_alike_again(
    database: Database, late_for: int, closes: bool
) -> None:
    know(database, SERIES_OF_A_HABIT + 1)
    receive(database, received(SLICES + 1, study=late_for))
    send(database)
    read(database)
    assert bool(release(database)) is closes


@pytest.mark.parametrize("why", ["open", "cut", "PACS says more", "concluded before", "a slice came"])
def test_a_habit_overrules_nothing_that_is_known(database: Database, why: str) -> None:
    know(database)
    send(database)
    read(database)
    if why == "cut":
        forget_association(database, SENDER)
    elif why != "open":
        assert release(database, habits=False) == [], "switched off"
    if why == "PACS says more":
        change(database, SeriesRow, expected_instances=SLICES + 1)
    if why == "concluded before":
        change(database, SeriesRow, concluded_at=time.time())
    if why == "a slice came":
        receive(database, received(SLICES + 1, study=NEW))
    due_at = newest(database).due_at
    assert not close(database)
    assert newest(database).due_at == due_at > time.time()
