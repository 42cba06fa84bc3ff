"""Leases, checkpoints and failures: any worker may die at any moment, and no series is lost or loops."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ich_node.database import Database, InstanceRow, PlaneRow, SeriesRow
from ich_node.job_queue import (
    close_series,
    fail_attempt,
    free_leases_of_the_dead,
    new_owner,
    postpone,
    release_lease,
    requeue,
    save_read,
    unreported_studies,
    waiting_instances,
    work,
)
from ich_node.job_queue.facts import facts_from_json, facts_to_json
from ich_node.queries import node_status
from ich_node.records import InstanceState, NotAnalysedReason, ReadInstance, SeriesState, SliceFacts, TissueMeasure
from tests.unit.queueing import (
    change,
    claim,
    keep_planes,
    make_due,
    open_queue,
    plane,
    receive,
    received,
    rows,
    score,
)


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    database = open_queue(tmp_path)
    yield database
    database.close()


def expire_leases(database: Database) -> None:
    change(database, SeriesRow, lease_expires_at=time.time() - 1)


# ------------------------------------------------------------------------------------------- claiming


def test_a_series_belongs_to_one_worker_at_a_time(database: Database) -> None:
    receive(database, received(1))
    (job,) = claim(database, "a")
    assert claim(database, "b") == []
    release_lease(database, [job.id], "a")
    assert len(claim(database, "b")) == 1


def test_a_series_without_work_is_not_claimed_before_it_is_due(database: Database) -> None:
    receive(database, received(1))
    (job,) = claim(database, "a")
    assert not job.due
    score(database, job, "a")
    release_lease(database, [job.id], "a")
    assert claim(database, "a") == []
    make_due(database)
    (job,) = claim(database, "a")
    assert job.due
    assert not job.last_chance


def test_the_longest_waiting_series_comes_first(database: Database) -> None:
    receive(database, received(1, study=3), received(1, study=1), received(1, study=2))
    assert [job.study_instance_uid for job in claim(database, "a", limit=2)] == ["1.2.3", "1.2.1"]


def test_a_lease_that_ran_out_is_free_and_counts_as_a_failed_attempt(database: Database) -> None:
    receive(database, received(1))
    claim(database, "a")
    expire_leases(database)
    (job,) = claim(database, "b")
    assert job.attempts == 1
    assert not score(database, job, "a")
    assert score(database, job, "b")


# ------------------------------------------------------------------------------- when the lease was lost


def test_a_worker_that_lost_its_lease_saves_nothing(database: Database) -> None:
    receive(database, received(1))
    (job,) = claim(database, "a")
    expire_leases(database)
    claim(database, "b")
    assert not score(database, job, "a")
    make_due(database)
    assert not close_series(database, job, "a", lease_s=60)
    assert not fail_attempt(database, job, "a", "late", retry_s=1)
    postpone(database, job, "a", 20)
    release_lease(database, [job.id], "a")
    assert rows(database, PlaneRow) == []
    (row,) = rows(database, SeriesRow)
    assert (row.lease_owner, row.state, row.attempts) == ("b", "RECEIVING", 1)


def test_a_checkpoint_renews_the_lease(database: Database) -> None:
    receive(database, received(1))
    (job,) = claim(database, "a", lease_s=5)
    score(database, job, "a")
    (row,) = rows(database, SeriesRow)
    assert row.lease_expires_at > time.time() + 30


def test_a_slice_replaced_while_it_was_read_is_read_again(database: Database) -> None:
    receive(database, received(1))
    (job,) = claim(database, "a")
    (instance,) = waiting_instances(database, job.id, 10)
    receive(database, received(1, version=2))
    assert save_read(database, job, "a", [ReadInstance(instance.id, InstanceState.DECODED)], lease_s=60)
    (newer,) = waiting_instances(database, job.id, 10)
    assert newer.id == 2
    assert newer.older_path == instance.path


def test_a_plane_scored_again_takes_the_place_of_the_stale_one(database: Database) -> None:
    receive(database, received(1))
    (job,) = claim(database, "a")
    score(database, job, "a")
    (old,) = rows(database, PlaneRow)
    assert keep_planes(database, job, "a", [plane("1.2.1.1.1", 7.5)], stale=[old.id])
    assert [row.position_mm for row in rows(database, PlaneRow)] == [7.5]


def test_planes_that_wait_for_the_network_make_a_series_claimable(database: Database) -> None:
    receive(database, received(1))
    (job,) = claim(database, "a")
    score(database, job, "a")
    assert keep_planes(database, job, "a", [], waiting=3)
    release_lease(database, [job.id], "a")
    assert len(claim(database, "a")) == 1
    assert keep_planes(database, job, "a", [], waiting=0)
    release_lease(database, [job.id], "a")
    assert claim(database, "a") == []


# ---------------------------------------------------------------------------------------------- closing


def test_a_series_closes_only_when_due_and_all_slices_are_decoded(database: Database) -> None:
    receive(database, received(1))
    (job,) = claim(database, "a")
    make_due(database)
    assert not close_series(database, job, "a", lease_s=60)
    score(database, job, "a")
    change(database, SeriesRow, due_at=time.time() + 5)
    assert not close_series(database, job, "a", lease_s=60)
    make_due(database)
    assert close_series(database, job, "a", lease_s=60)


def test_a_postponed_series_waits_for_the_longest_wait_after_its_last_slice(database: Database) -> None:
    receive(database, received(1))
    (job,) = claim(database, "a")
    score(database, job, "a")
    make_due(database)
    assert close_series(database, job, "a", lease_s=60)
    postpone(database, job, "a", 20)
    (row,) = rows(database, SeriesRow)
    assert (row.state, row.due_at) == ("RECEIVING", pytest.approx(row.last_received_at + 20, abs=0.001))
    change(database, SeriesRow, last_received_at=time.time() - 21, due_at=time.time() - 1)
    release_lease(database, [job.id], "a")
    (job,) = claim(database, "a")
    assert job.last_chance


# -------------------------------------------------------------------------------------------- poison jobs


def test_a_job_that_fails_three_times_ends_failed_and_is_visible(database: Database) -> None:
    receive(database, received(1))
    ended = []
    for _ in range(3):
        (job,) = claim(database, "a")
        ended.append(fail_attempt(database, job, "a", "ValueError", retry_s=100))
        assert claim(database, "a") == []  # not at once
        change(database, SeriesRow, not_before=0.0)
    assert ended == [False, False, True]
    make_due(database)
    assert claim(database, "a") == []
    status = node_status(database)
    assert status.series == {"FAILED": 1}
    assert status.studies[0].series[0].why == "the analysis failed (ValueError)"
    assert "the analysis failed" in status.studies[0].outcome


def test_a_job_that_kills_its_worker_three_times_ends_failed(database: Database) -> None:
    receive(database, received(1))
    for life in range(3):
        assert len(claim(database, f"worker in its life {life}")) == 1
        expire_leases(database)
    assert claim(database, "b") == []
    assert [row.state for row in rows(database, SeriesRow)] == [SeriesState.FAILED]


def test_series_claimed_together_with_a_poison_job_do_not_fail_with_it(database: Database) -> None:
    receive(database, *(received(1, study=study) for study in range(5)))
    poison = 1
    for life in range(30):
        worker = f"worker in its life {life}"
        jobs = claim(database, worker)
        if any(job.id == poison for job in jobs):
            expire_leases(database)  # it died
            continue
        for job in jobs:
            score(database, job, worker)
        release_lease(database, [job.id for job in jobs], worker)
    states = {row.id: row.state for row in rows(database, SeriesRow)}
    assert states == {1: "FAILED", 2: "RECEIVING", 3: "RECEIVING", 4: "RECEIVING", 5: "RECEIVING"}
    assert {row.attempts for row in rows(database, SeriesRow) if row.id != poison} == {0}
    assert len(rows(database, PlaneRow)) == 4


def test_a_good_step_forgives_earlier_failures(database: Database) -> None:
    receive(database, received(1))
    (job,) = claim(database, "a")
    fail_attempt(database, job, "a", "passing", retry_s=0)
    (job,) = claim(database, "a")
    assert job.attempts == 1
    score(database, job, "a")
    release_lease(database, [job.id], "a")
    assert [row.attempts for row in rows(database, SeriesRow)] == [0]


def test_a_failed_head_ct_is_told_and_requeue_starts_it_again(database: Database) -> None:
    receive(database, received(1))
    change(database, SeriesRow, attempts=2)
    (job,) = claim(database, "a")
    assert fail_attempt(database, job, "a", "x", retry_s=0)
    (study,) = unreported_studies(database)
    assert study.reason is NotAnalysedReason.ANALYSIS_FAILED
    assert requeue(database, failed_only=True) == 1
    assert unreported_studies(database) == []
    assert len(claim(database, "a")) == 1


# ---------------------------------------------------------------------------------------------- requeue


def test_requeue_takes_the_series_from_whoever_works_on_it(database: Database) -> None:
    receive(database, received(1))
    (job,) = claim(database, "a")
    assert requeue(database, uid="1.2.1") == 1
    assert not score(database, job, "a")
    (job,) = claim(database, "b")
    assert score(database, job, "b")


def test_requeue_names_one_series_one_study_or_all(database: Database) -> None:
    receive(database, received(1), received(1, series=2), received(1, study=2))
    assert requeue(database, uid="1.2.1.2") == 1
    assert requeue(database, uid="1.2.1") == 2
    assert requeue(database) == 3
    assert requeue(database, uid="1.2.99") == 0


def test_requeue_scores_every_current_slice_anew(database: Database) -> None:
    receive(database, received(1), received(2))
    (job,) = claim(database, "a")
    score(database, job, "a")
    receive(database, received(2, version=2))
    requeue(database)
    assert rows(database, PlaneRow) == []
    assert [(row.state, row.current) for row in rows(database, InstanceRow)] == [
        ("RECEIVED", True), ("DECODED", False), ("RECEIVED", True),
    ]  # fmt: skip


def test_requeue_leaves_a_quarantined_series(database: Database) -> None:
    receive(database, received(1))
    change(database, SeriesRow, state=SeriesState.QUARANTINED)
    assert requeue(database, uid="1.2.1") == 0


# ------------------------------------------------------------------------------------- leases of the dead


def ended_process_as_owner() -> str:
    code = "from ich_node.job_queue import new_owner; print(new_owner())"
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()


def test_the_leases_of_a_process_that_ended_are_free_at_once(database: Database) -> None:
    receive(database, received(1))
    claim(database, ended_process_as_owner())
    assert free_leases_of_the_dead(database) == 1
    (job,) = claim(database, "b")
    assert job.attempts == 1


def test_the_leases_of_a_living_process_stay(database: Database) -> None:
    receive(database, received(1))
    claim(database, new_owner())
    assert free_leases_of_the_dead(database) == 0


def test_a_process_number_used_again_is_told_apart(database: Database) -> None:
    receive(database, received(1))
    claim(database, f"{socket.gethostname()}:{os.getpid()}:1")
    assert free_leases_of_the_dead(database) == 1


def test_the_leases_of_another_host_are_left_to_run_out(database: Database) -> None:
    receive(database, received(1))
    claim(database, "elsewhere:1:1")
    assert free_leases_of_the_dead(database) == 0


def test_an_owner_does_not_change_when_the_clock_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    before = new_owner()
    monkeypatch.setattr("psutil._pslinux.boot_time", lambda: 1.0)
    monkeypatch.setattr(time, "time", lambda: 1.0)
    assert new_owner() == before


# ------------------------------------------------------------------------------------------------ facts


def test_facts_come_back_from_the_database_as_they_were() -> None:
    one = SliceFacts(
        "1.2", 3, "1.2.840", "CT", ("ORIGINAL", "PRIMARY"), (0.0, 1.5, -2.0), (1.0, 0.0, 0.0, 0.0, 1.0, 0.0),
        (0.5, 0.5), None, 512, 512, 7, "H30s", True, False, TissueMeasure(0.5, 0.25, 0.125, 0.0, 32.0),
        ("12-bit wrap",),
    )  # fmt: skip
    assert facts_from_json(facts_to_json((one,))) == (one,)
    assert facts_from_json(facts_to_json(())) == ()


def test_the_next_series_is_found_by_an_index_in_its_order_whatever_waits(database: Database) -> None:
    wanted = work._ANY.params(owner="me", now=0.0)
    statement = str(wanted.compile(database.engine, compile_kwargs={"literal_binds": True}))
    with database.reading() as connection:
        if database.file is None:  # an empty table is read from end to end; what matters is that the index could serve
            connection.exec_driver_sql("SET LOCAL enable_seqscan = off")
            connection.exec_driver_sql("SET LOCAL enable_sort = off")
            plan = [row[0] for row in connection.exec_driver_sql(f"EXPLAIN {statement}")]
        else:
            plan = [row.detail for row in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}")]
    assert any("series_to_claim" in line for line in plan), plan
    assert not any("ORDER BY" in line or "Sort" in line for line in plan), plan
