"""How long a series waits, who holds it open, and in which order the work and the reports go."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ich_node.database import Database, OpenAssociationRow, SeriesRow
from ich_node.job_queue import (
    SendingAssociation,
    claim_deliveries,
    forget_association,
    free_leases_of_the_dead,
    release_association,
)
from ich_node.job_queue.reception import enter_instance
from ich_node.records import SeriesState, Triage
from tests.unit.concluding import conclude
from tests.unit.queueing import change, claim, make_due, open_queue, receive, received, rows

FIRST, SECOND = SendingAssociation("first", "receiver"), SendingAssociation("second", "receiver")


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    database = open_queue(tmp_path)
    yield database
    database.close()


def release(database: Database, association: SendingAssociation, quiet_s: float = 3) -> None:
    release_association(database, association, quiet_s=quiet_s, max_wait_s=20)


def wait_s(database: Database) -> float:
    """From the last slice until the series is due."""
    (row,) = rows(database, SeriesRow)
    return float(row.due_at - row.last_received_at)


# ------------------------------------------------------------------------------------- open associations


def test_a_series_waits_until_the_last_of_its_associations_is_released(database: Database) -> None:
    receive(database, received(1), association=FIRST)
    receive(database, received(2), association=SECOND)
    release(database, FIRST)
    assert wait_s(database) == pytest.approx(20)
    release(database, SECOND)
    assert wait_s(database) == pytest.approx(3)
    assert rows(database, OpenAssociationRow) == []


def test_an_association_holds_each_series_once_however_much_it_sends(database: Database) -> None:
    receive(database, *(received(number) for number in range(3)), received(1, series=2), association=FIRST)
    assert [row.series_id for row in rows(database, OpenAssociationRow)] == [1, 2]


def test_an_association_whose_lease_ran_out_holds_nothing_open(database: Database) -> None:
    receive(database, received(1), association=FIRST)
    change(database, OpenAssociationRow, lease_expires_at=time.time() - 1)
    receive(database, received(2), association=SECOND)
    release(database, SECOND)
    assert wait_s(database) == pytest.approx(3)


def test_a_receiver_that_died_holds_nothing_open(database: Database) -> None:
    dead = SendingAssociation("of the dead", "elsewhere:1:1")
    receive(database, received(1), association=dead)
    make_due(database)  # nobody releases it: the longest wait passes
    (job,) = claim(database, "me")
    assert job.due


def test_associations_of_a_process_that_ended_are_forgotten(database: Database) -> None:
    import socket

    receive(database, received(1), association=SendingAssociation("x", f"{socket.gethostname()}:999999999:1"))
    receive(database, received(2), association=SendingAssociation("y", "elsewhere:1:1"))
    free_leases_of_the_dead(database)
    assert [row.association for row in rows(database, OpenAssociationRow)] == ["y"]


def test_an_association_that_was_cut_shortens_nothing(database: Database) -> None:
    receive(database, received(1), association=FIRST)
    forget_association(database, FIRST)
    assert wait_s(database) == pytest.approx(20)
    assert rows(database, OpenAssociationRow) == []


# -------------------------------------------------------------------------------------------- quiet time


@pytest.mark.parametrize(("pause_s", "quiet_s"), [(1, 3), (4, 8), (9.5, 19), (60, 20)])
def test_the_quiet_time_is_twice_the_longest_pause_where_that_is_more(
    database: Database, pause_s: float, quiet_s: float
) -> None:
    receive(database, received(1), association=FIRST)
    change(database, SeriesRow, last_received_at=time.time() - pause_s)
    receive(database, received(2), received(3), association=FIRST)
    release(database, FIRST)
    assert wait_s(database) == pytest.approx(quiet_s, abs=0.5)


def test_a_release_only_shortens_the_wait(database: Database) -> None:
    receive(database, received(1), association=FIRST)
    change(database, SeriesRow, due_at=time.time() + 1)
    due_at = rows(database, SeriesRow)[0].due_at
    release(database, FIRST)
    assert rows(database, SeriesRow)[0].due_at == due_at


def test_late_slices_are_collected_for_the_longest_wait(database: Database) -> None:
    conclude(database, Triage.NEGATIVE)
    receive(database, received(2), association=FIRST)
    release(database, FIRST)
    assert wait_s(database) == pytest.approx(20)
    assert rows(database, SeriesRow)[0].state == SeriesState.RECEIVING


# ------------------------------------------------------------------------------------------------- order


def test_new_studies_are_claimed_before_old_ones_and_urgent_ones_first(database: Database) -> None:
    receive(
        database, received(1, study=1, old=True, priority=9), received(1, study=2), received(1, study=3, priority=5)
    )
    receive(database, received(1, study=4), received(1, study=5, old=True))
    order = [job.study_instance_uid for job in claim(database, "me")]
    assert order == ["1.2.3", "1.2.2", "1.2.4", "1.2.1", "1.2.5"]


def test_two_hundred_old_studies_do_not_keep_a_new_one_waiting(database: Database) -> None:
    receive(database, *(received(1, study=study, old=True) for study in range(1, 201)), received(1, study=201))
    (first,) = claim(database, "me", limit=1)
    assert first.study_instance_uid == "1.2.201"


def test_one_slice_that_is_new_or_urgent_makes_its_series_so(database: Database) -> None:
    receive(database, received(1, study=1), received(1, study=2, old=True))
    receive(database, received(2, study=2, priority=3))
    assert [job.study_instance_uid for job in claim(database, "me", limit=1)] == ["1.2.2"]


def test_reports_of_new_and_urgent_studies_are_sent_first(database: Database) -> None:
    for study in (1, 2, 3):
        conclude(database, Triage.NEGATIVE, study=study)
    with database.writing() as connection:
        connection.exec_driver_sql("UPDATE study SET old = id = 1, priority = CASE id WHEN 3 THEN 5 ELSE 0 END")
    sent = [one.study_instance_uid for one in claim_deliveries(database, "me", Path("/state"), lease_s=60)]
    assert sent == ["1.2.3", "1.2.2", "1.2.1"]


def test_an_image_in_each_second_renews_the_lease_of_its_association(database: Database) -> None:
    """And one of which the clock was set back: a lease is never longer than one that is given now."""
    sender = SendingAssociation("renewing", "receiver")
    held = []
    for number, now in enumerate((1000.0, 1000.5, 1001.5, 990.0)):
        with database.writing() as connection:
            enter_instance(connection, received(number), 100.0, True, sender, now)
        held += [row.lease_expires_at for row in rows(database, OpenAssociationRow)]
    assert held == [1100.0, 1100.0, 1101.5, 1090.0]
