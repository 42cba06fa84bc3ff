"""Conclusions, reports and the outbox: saved whole or not at all, one current report per study."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import insert

from ich_node.database import Database, DeliveryRow, DestinationRow, FileToDeleteRow, InstanceRow, ResultRow, SeriesRow
from ich_node.job_queue import (
    DeliveryRules,
    claim_deliveries,
    conclude_series,
    free_leases_of_the_dead,
    known_paths,
    known_reports,
    mark_delivered,
    mark_refused,
    mark_unreached,
    pause_destination,
    report_not_analysed,
    rescue_expired_leases,
    resend,
    unreported_studies,
)
from ich_node.queries import node_status
from ich_node.records import Delivery, DeliveryState, Destination, NotAnalysedReason, SeriesState, Triage
from tests.unit.concluding import closed_job, conclude, conclusion, decline, outbox, report_object, study_row
from tests.unit.queueing import PACS, change, open_queue, receive, received, rows

ARCHIVE = Destination("archive", "ARCHIVE", "127.0.0.1", 105)
STATE = Path("/state")
DAY_S = 86400.0


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    database = open_queue(tmp_path)
    yield database
    database.close()


def claimed(database: Database, owner: str = "me", lease_s: float = 60.0) -> list[Delivery]:
    return claim_deliveries(database, owner, STATE, lease_s=lease_s)


# ------------------------------------------------------------------------------------------- concluding


def test_a_conclusion_saves_answer_report_and_deliveries_together(database: Database) -> None:
    job = closed_job(database)
    done = conclusion(database, job, Triage.POSITIVE, destinations=(PACS, ARCHIVE))
    assert conclude_series(database, job, "me", done)
    assert (study_row(database).triage, study_row(database).revision) == ("positive", 1)
    assert [row.sop_instance_uid for row in rows(database, ResultRow)] == ["2.25.1.1.0", "2.25.1.1.1"]
    assert outbox(database) == [(1, "pacs", "PENDING"), (1, "archive", "PENDING")]
    (row,) = rows(database, SeriesRow)
    assert (row.state, row.triage, row.lease_owner) == ("CONCLUDED", "positive", None)


def test_a_slice_that_arrives_while_a_series_is_concluded_voids_the_conclusion(database: Database) -> None:
    job = closed_job(database)
    done = conclusion(database, job, Triage.NEGATIVE)
    receive(database, received(2))
    assert not conclude_series(database, job, "me", done)
    assert (study_row(database).revision, rows(database, ResultRow), outbox(database)) == (0, [], [])
    assert [row.state for row in rows(database, SeriesRow)] == [SeriesState.RECEIVING]


def test_a_conclusion_without_the_lease_is_refused(database: Database) -> None:
    job = closed_job(database)
    done = conclusion(database, job, Triage.NEGATIVE)
    change(database, SeriesRow, lease_owner="another")
    assert not conclude_series(database, job, "me", done)
    assert rows(database, ResultRow) == []


def test_a_conclusion_that_rests_on_other_instances_than_are_stored_is_refused(database: Database) -> None:
    job = closed_job(database)
    done = conclusion(database, job, Triage.NEGATIVE)
    assert not conclude_series(database, job, "me", replace(done, stamp=(2, 3)))
    assert conclude_series(database, job, "me", done)


def test_two_series_concluded_at_once_cannot_take_the_same_revision(database: Database) -> None:
    first, second = closed_job(database, series=1), closed_job(database, series=2)
    at_once = conclusion(database, second, Triage.POSITIVE)
    assert conclude_series(database, first, "me", conclusion(database, first, Triage.NEGATIVE))
    assert not conclude_series(database, second, "me", at_once)
    again = conclusion(database, second, Triage.POSITIVE)
    assert again.revision == 2
    assert conclude_series(database, second, "me", again)
    assert study_row(database).triage == "positive"


def test_a_late_slice_reopens_a_concluded_series_and_raises_the_revision(database: Database) -> None:
    assert conclude(database, Triage.NEGATIVE)
    assert conclude(database, Triage.POSITIVE, number=2)
    assert (study_row(database).triage, study_row(database).revision) == ("positive", 2)
    assert outbox(database) == [(1, "pacs", "SUPERSEDED"), (2, "pacs", "PENDING")]


def test_what_was_delivered_stays_delivered_when_a_new_report_comes(database: Database) -> None:
    conclude(database, Triage.NEGATIVE)
    (delivery,) = claimed(database)
    mark_delivered(database, delivery, "me", "2.25.1.1.0", 0)
    conclude(database, Triage.POSITIVE, number=2)
    assert outbox(database) == [(1, "pacs", "DELIVERED"), (2, "pacs", "PENDING")]


@pytest.mark.parametrize(
    ("first", "second", "revision"),
    [
        (Triage.POSITIVE, Triage.NEGATIVE, 2),
        (Triage.POSITIVE, Triage.INDETERMINATE, 2),
        (Triage.POSITIVE, Triage.POSITIVE, None),
        (Triage.NEGATIVE, Triage.INDETERMINATE, 2),
        (Triage.INDETERMINATE, Triage.POSITIVE, 2),
        (None, Triage.NEGATIVE, 2),
    ],
)
def test_a_study_keeps_the_highest_triage_of_its_series_and_says_where_they_differ(
    database: Database, first: Triage | None, second: Triage, revision: int | None
) -> None:
    conclude(database, first)
    job = closed_job(database, series=2)
    done = conclusion(database, job, second)
    assert done.revision == revision
    assert conclude_series(database, job, "me", done)
    highest = first if first is Triage.POSITIVE else second
    assert study_row(database).triage == highest
    assert done.plan is not None
    lower = [second if highest is first else first] if revision else []
    assert [one.triage for one in done.plan.other_series] == lower
    assert [row.state for row in rows(database, SeriesRow)] == ["CONCLUDED"] * 2


def test_the_series_that_a_study_rests_on_may_lower_its_own_answer(database: Database) -> None:
    conclude(database, Triage.POSITIVE)
    conclude(database, Triage.NEGATIVE, number=2)
    assert (study_row(database).triage, study_row(database).revision) == ("negative", 2)


# ------------------------------------------------------------------------- studies that end without a result


def test_a_study_without_a_result_is_told_once_and_only_when_all_of_it_is_settled(database: Database) -> None:
    decline(database)
    receive(database, received(1, series=2))
    assert unreported_studies(database) == []
    change(database, SeriesRow, state=SeriesState.NOT_ANALYSED)
    (study,) = unreported_studies(database)
    assert (study.reason, study.revision) == (NotAnalysedReason.NOT_AXIAL, 1)
    assert report_not_analysed(database, study, [report_object(1)], [PACS])
    assert unreported_studies(database) == []
    assert (study_row(database).triage, study_row(database).reason) == (None, "NOT_AXIAL")
    assert outbox(database) == [(1, "pacs", "PENDING")]


def test_a_study_with_one_concluded_series_is_not_told_as_not_analysed(database: Database) -> None:
    conclude(database, Triage.NEGATIVE, series=1)
    decline(database, series=2)
    assert unreported_studies(database) == []


def test_a_study_where_no_head_was_expected_is_not_told(database: Database) -> None:
    decline(database, reason=NotAnalysedReason.NOT_CT, head=False)
    assert unreported_studies(database) == []
    assert node_status(database).studies[0].outcome == "not analysed: not a CT image"


def test_a_study_that_goes_on_meanwhile_is_not_told(database: Database) -> None:
    decline(database)
    (study,) = unreported_studies(database)
    receive(database, received(2))
    assert not report_not_analysed(database, study, [report_object(1)], [PACS])
    assert rows(database, ResultRow) == []


def test_a_result_takes_the_place_of_a_not_analysed_report(database: Database) -> None:
    decline(database)
    (study,) = unreported_studies(database)
    report_not_analysed(database, study, [report_object(1)], [PACS])
    conclude(database, Triage.NEGATIVE, series=2)
    assert (study_row(database).triage, study_row(database).revision) == ("negative", 2)
    assert outbox(database) == [(1, "pacs", "SUPERSEDED"), (2, "pacs", "PENDING")]


# ------------------------------------------------------------------------------------------------ outbox


def test_a_delivery_names_its_objects_the_preferred_one_first(database: Database) -> None:
    conclude(database, Triage.POSITIVE)
    (delivery,) = claimed(database)
    assert [one.path for one in delivery.objects] == [STATE / f"results/2.25.1.1.{n}.dcm" for n in (0, 1)]
    assert claimed(database, "another") == []


def test_an_object_is_retried_with_growing_pauses(database: Database) -> None:
    conclude(database, Triage.POSITIVE)
    rules = DeliveryRules(first_retry_s=5, longest_retry_s=600)
    pauses = []
    for _ in range(10):
        (delivery,) = claimed(database)
        now = time.time()
        assert mark_unreached(database, [delivery], "me", "no answer", rules) == [DeliveryState.PENDING]
        assert claimed(database) == []
        pauses.append(rows(database, DeliveryRow)[0].next_attempt_at - now)
        change(database, DeliveryRow, next_attempt_at=0.0)
    for attempt, pause in enumerate(pauses):
        assert 0.79 * min(5 * 2**attempt, 600) < pause < 1.21 * min(5 * 2**attempt, 600)
    assert len({round(pause / 5, 6) for pause in pauses}) == 10


def test_an_object_that_arrives_nowhere_for_seven_days_is_dead(database: Database) -> None:
    conclude(database, Triage.POSITIVE)
    change(database, DeliveryRow, created_at=time.time() - 7.1 * DAY_S)
    (delivery,) = claimed(database)
    assert mark_unreached(database, [delivery], "me", "no answer", DeliveryRules()) == [DeliveryState.DEAD]
    assert node_status(database).deliveries == {"DEAD": 1}


def test_an_object_refused_five_times_is_dead(database: Database) -> None:
    conclude(database, Triage.POSITIVE)
    states = []
    for _ in range(5):
        (delivery,) = claimed(database)
        states.append(mark_refused(database, delivery, "me", "status 0xA900", 0xA900, DeliveryRules()))
        change(database, DeliveryRow, next_attempt_at=0.0)
    assert states == ["PENDING"] * 4 + ["DEAD"]
    assert claimed(database) == []


def test_a_paused_destination_holds_its_rows_and_no_others(database: Database) -> None:
    job = closed_job(database)
    done = conclusion(database, job, Triage.POSITIVE, destinations=(PACS, ARCHIVE))
    conclude_series(database, job, "me", done)
    first = claimed(database)
    assert pause_destination(database, first, "me", "rejected", DeliveryRules())
    (second,) = claimed(database)
    assert second.destination != first[0].destination
    mark_delivered(database, second, "me", "x", 0)
    assert claimed(database) == []
    change(database, DestinationRow, next_attempt_at=0.0)
    again = claimed(database)
    assert again[0].destination == first[0].destination
    assert not pause_destination(database, again, "me", "rejected", DeliveryRules())
    change(database, DestinationRow, next_attempt_at=0.0)
    mark_delivered(database, claimed(database)[0], "me", "x", 0)
    assert rows(database, DestinationRow) == []


def test_a_deliverer_that_vanished_leaves_its_rows_to_the_next(database: Database) -> None:
    conclude(database, Triage.POSITIVE)
    (lost,) = claimed(database, "gone")
    change(database, DeliveryRow, lease_expires_at=time.time() - 1)
    assert rescue_expired_leases(database) == 1
    (delivery,) = claimed(database, "next")
    mark_delivered(database, lost, "gone", "x", 0)
    assert outbox(database) == [(1, "pacs", "SENDING")]
    mark_delivered(database, delivery, "next", "x", 0xB000, "status 0xB000")
    (row,) = rows(database, DeliveryRow)
    assert (row.state, row.error, row.dimse_status) == ("DELIVERED", "status 0xB000", 0xB000)


def test_rows_of_a_dead_process_go_out_again(database: Database) -> None:
    import socket

    conclude(database, Triage.POSITIVE)
    claimed(database, f"{socket.gethostname()}:999999999:1")
    assert free_leases_of_the_dead(database) == 1
    assert outbox(database) == [(1, "pacs", "PENDING")]


# ------------------------------------------------------------------------------------------------ resend


def test_resend_sends_the_current_report_again_and_to_new_destinations(database: Database) -> None:
    conclude(database, Triage.NEGATIVE)
    mark_delivered(database, claimed(database)[0], "me", "x", 0)
    conclude(database, Triage.POSITIVE, number=2)
    mark_delivered(database, claimed(database)[0], "me", "x", 0)
    assert resend(database, lambda _: [PACS, ARCHIVE], study_instance_uid="1.2.1") == 2
    assert outbox(database) == [(1, "pacs", "DELIVERED"), (2, "pacs", "PENDING"), (2, "archive", "PENDING")]


def test_resend_of_the_dead_leaves_the_others(database: Database) -> None:
    conclude(database, Triage.POSITIVE, study=1)
    conclude(database, Triage.POSITIVE, study=2)
    with database.writing() as connection:
        connection.exec_driver_sql("UPDATE delivery SET state = 'DEAD', refusals = 5, attempts = 9 WHERE study_id = 1")
        connection.exec_driver_sql("UPDATE delivery SET state = 'DELIVERED' WHERE study_id = 2")
    assert resend(database, lambda _: [PACS, ARCHIVE], dead_only=True) == 1
    first = rows(database, DeliveryRow)[0]
    assert (first.state, first.refusals, first.attempts) == ("PENDING", 0, 0)
    assert [row.state for row in rows(database, DeliveryRow)] == ["PENDING", "DELIVERED"]


def test_a_report_whose_file_is_gone_is_not_received_again(database: Database) -> None:
    conclude(database, Triage.POSITIVE)
    mark_delivered(database, claimed(database)[0], "me", "x", 0)
    change(database, ResultRow, path=None)
    assert resend(database, lambda _: [PACS, ARCHIVE]) == 0
    assert outbox(database) == [(1, "pacs", "DELIVERED")]


# ------------------------------------------------------------------------------------------------ files


def test_known_paths_are_those_of_images_and_reports(database: Database) -> None:
    conclude(database, Triage.NEGATIVE)
    (image,) = [row.path for row in rows(database, InstanceRow)]
    assert known_paths(database) == {image, "results/2.25.1.1.0.dcm", "results/2.25.1.1.1.dcm"}


def test_known_reports_are_those_that_a_result_or_a_deletion_speaks_of(database: Database) -> None:
    conclude(database, Triage.NEGATIVE)
    with database.writing() as connection:
        connection.execute(insert(FileToDeleteRow), [{"path": "results/2.25.9.dcm"}])
    speaks = {"results/2.25.1.1.0.dcm", "results/2.25.1.1.1.dcm", "results/2.25.9.dcm"}
    assert known_reports(database, speaks | {"results/2.25.7.dcm"}) == speaks
    assert known_reports(database, {"results/2.25.1.1.0.dcm"}) == {"results/2.25.1.1.0.dcm"}


def test_a_repeated_conclusion_never_uses_a_uid_twice(database: Database) -> None:
    job = closed_job(database)
    done = conclusion(database, job, Triage.POSITIVE)
    assert conclude_series(database, job, "me", done)
    assert not conclude_series(database, job, "me", done)
    assert len({row.sop_instance_uid for row in rows(database, ResultRow)}) == 2
