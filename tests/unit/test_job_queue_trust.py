"""What may not be trusted or was taken back: quarantine, rejection, withdrawal, and what the study says then."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from ich_node.database import Database, DeliveryRow, InstanceRow, PlaneRow, SeriesRow
from ich_node.job_queue import (
    StudyToTell,
    close_series,
    conclude_series,
    fail_attempt,
    load_content,
    quarantine_series,
    reject_instances,
    reject_quarantined,
    release_quarantined,
    requeue,
    save_read,
    studies_to_withdraw,
    waiting_instances,
    withdraw_study,
)
from ich_node.records import (
    InstanceState,
    NotAnalysedReason,
    ReadInstance,
    Reception,
    RejectionNote,
    SeriesState,
    Triage,
)
from tests.unit.concluding import closed_job, conclude, conclusion, decline, outbox, report_object, study_row
from tests.unit.queueing import MODEL, PACS, change, claim, make_due, open_queue, receive, received, rows, score

OTHER_CHOSEN = NotAnalysedReason.OTHER_SERIES_CHOSEN


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    database = open_queue(tmp_path)
    yield database
    database.close()


def states(database: Database) -> list[str]:
    return [row.state for row in rows(database, SeriesRow)]


def note(
    *numbers: int, series: int = 1, reason: NotAnalysedReason = NotAnalysedReason.REJECTED_SAFETY
) -> RejectionNote:
    return RejectionNote(reason, tuple(f"1.2.1.{series}.{number}" for number in numbers))


def quarantine_chosen(database: Database, series: int = 1) -> None:
    """A slice more, and the series turns out to hold two patients."""
    job = closed_job(database, series=series, number=50)
    assert quarantine_series(database, job.id, "me", NotAnalysedReason.TWO_PATIENTS)


def withdraw(database: Database) -> StudyToTell:
    (study,) = studies_to_withdraw(database)
    assert withdraw_study(database, study, [report_object(study.revision)], [PACS])
    return study


# ---------------------------------------------------------------------------------------------- versions


def test_other_bytes_are_read_beside_the_version_before(database: Database) -> None:
    first = received(1)
    receive(database, first, received(1, version=2))
    (waiting,) = waiting_instances(database, 1, 10)
    assert (waiting.id, waiting.older_path) == (2, first.path)


def test_another_picture_under_the_same_uid_quarantines_the_series(database: Database) -> None:
    receive(database, received(1), received(1, version=2))
    (job,) = claim(database, "me")
    other = ReadInstance(2, InstanceState.DECODED, other_picture=True)
    assert not save_read(database, job, "me", [other], lease_s=60)
    (row,) = rows(database, SeriesRow)
    assert (row.state, row.reason, row.detail, row.lease_owner) == ("QUARANTINED", "OTHER_PIXELS", "1 image", None)


def test_a_uid_in_another_series_quarantines_both_and_stops_what_was_to_be_sent(database: Database) -> None:
    conclude(database, Triage.POSITIVE)
    assert outbox(database) == [(1, "pacs", "PENDING")]
    elsewhere = received(7, series=2, sop_instance_uid="1.2.1.1.1")
    assert receive(database, elsewhere) is Reception.QUARANTINED
    assert [(row.state, row.reason) for row in rows(database, SeriesRow)] == [("QUARANTINED", "UID_ELSEWHERE")] * 2
    assert outbox(database) == [(1, "pacs", "SUPERSEDED")]


def test_a_uid_of_a_rejected_series_is_free_for_the_right_one(database: Database) -> None:
    receive(database, received(1), received(7, series=2, sop_instance_uid="1.2.1.1.1"))
    assert reject_quarantined(database, "1.2.1.1") == 1
    assert release_quarantined(database, "1.2.1.2") == 1
    again = received(7, series=2, sop_instance_uid="1.2.1.1.1", sha256="corrected")
    assert receive(database, again) is Reception.VERSION
    assert states(database) == ["REJECTED", "RECEIVING"]


# ------------------------------------------------------------------------------------- rejection notes


def test_a_series_that_loses_some_images_is_analysed_again_without_them(database: Database) -> None:
    receive(database, received(1), received(2))
    conclude(database, Triage.POSITIVE, number=3)
    assert reject_instances(database, note(3)) == [1]
    assert states(database) == [SeriesState.RECEIVING]
    assert outbox(database) == [(1, "pacs", "SUPERSEDED")]
    assert [row.current for row in rows(database, InstanceRow)] == [True, True, False]
    (job,) = claim(database, "me")
    assert close_series(database, job, "me", lease_s=60)
    assert conclude_series(database, job, "me", conclusion(database, job, Triage.NEGATIVE))
    assert (study_row(database).triage, study_row(database).revision) == ("negative", 2)


def test_a_series_that_loses_all_images_is_rejected_and_its_result_withdrawn(database: Database) -> None:
    receive(database, received(1))
    conclude(database, Triage.POSITIVE, number=2)
    reject_instances(database, note(1, 2))
    assert states(database) == [SeriesState.REJECTED]
    withdraw(database)
    study = study_row(database)
    assert (study.triage, study.reason, study.withdrawn, study.revision) == (None, "REJECTED_SAFETY", True, 2)
    assert outbox(database) == [(1, "pacs", "SUPERSEDED"), (2, "pacs", "PENDING")]
    assert studies_to_withdraw(database) == []


def test_images_that_were_rejected_before_they_came_are_kept_and_not_analysed(database: Database) -> None:
    assert reject_instances(database, note(1, 2)) == []
    assert receive(database, received(1), received(2)) is Reception.KEPT_ONLY
    (row,) = rows(database, SeriesRow)
    assert (row.state, row.reason) == ("REJECTED", "REJECTED_SAFETY")
    assert receive(database, received(3)) is Reception.NEW
    assert states(database) == [SeriesState.RECEIVING]
    assert load_content(database, 1, None).stamp == (1, 3)


def test_a_rejection_note_that_comes_again_changes_nothing(database: Database) -> None:
    receive(database, received(2))
    conclude(database, Triage.POSITIVE)
    reject_instances(database, note(1))
    before = rows(database, SeriesRow), rows(database, InstanceRow)
    assert reject_instances(database, note(1)) == []
    assert (rows(database, SeriesRow), rows(database, InstanceRow)) == before


def test_a_doubted_answer_is_withdrawn_where_the_new_analysis_fails(database: Database) -> None:
    receive(database, received(2))
    conclude(database, Triage.POSITIVE)
    reject_instances(database, note(2))
    change(database, SeriesRow, attempts=2)
    (job,) = claim(database, "me")
    assert fail_attempt(database, job, "me", "ValueError", retry_s=0)
    assert withdraw(database).reason is NotAnalysedReason.ANALYSIS_FAILED


# ------------------------------------------------------------------------------- release and reject


def test_a_released_series_is_analysed_anew_and_its_report_is_a_new_revision(database: Database) -> None:
    conclude(database, Triage.POSITIVE)
    quarantine_chosen(database)
    assert release_quarantined(database, "1.2.1") == 1
    assert rows(database, PlaneRow) == []
    (job,) = claim(database, "me")
    assert close_series(database, job, "me", lease_s=60)
    assert conclude_series(database, job, "me", conclusion(database, job, Triage.POSITIVE))
    assert outbox(database) == [(1, "pacs", "SUPERSEDED"), (2, "pacs", "PENDING")]
    assert not study_row(database).withdrawn


def test_a_released_picture_is_not_quarantined_again_but_the_next_one_is(database: Database) -> None:
    receive(database, received(1), received(1, version=2))
    (job,) = claim(database, "me")
    save_read(database, job, "me", [ReadInstance(2, InstanceState.DECODED, other_picture=True)], lease_s=60)
    release_quarantined(database, "1.2.1.1")
    (job,) = claim(database, "me")
    assert save_read(database, job, "me", [ReadInstance(2, InstanceState.DECODED, other_picture=True)], lease_s=60)
    receive(database, received(1, version=3))
    assert not save_read(database, job, "me", [ReadInstance(3, InstanceState.DECODED, other_picture=True)], lease_s=60)
    assert states(database) == [SeriesState.QUARANTINED]


def test_a_person_gives_up_a_quarantined_series_and_nothing_else(database: Database) -> None:
    receive(database, received(1), received(1, series=2))
    change(database, SeriesRow, state=SeriesState.QUARANTINED)
    assert reject_quarantined(database, "1.2.1.1") == 1
    assert states(database) == [SeriesState.REJECTED, SeriesState.QUARANTINED]
    assert reject_quarantined(database, "1.2.1.1") == 0
    assert release_quarantined(database, "1.2.1.1") == 0


def test_requeue_leaves_what_is_quarantined_or_rejected(database: Database) -> None:
    receive(database, received(1), received(1, series=2))
    change(database, SeriesRow, state=SeriesState.QUARANTINED)
    reject_quarantined(database, "1.2.1.1")
    assert requeue(database) == 0


# ---------------------------------------------------------------------------------------- the next best


def test_a_withdrawal_wakes_the_other_series_of_the_study(database: Database) -> None:
    conclude(database, Triage.POSITIVE, series=1)
    conclude(database, Triage.NEGATIVE, series=2)
    decline(database, reason=OTHER_CHOSEN, series=3)
    decline(database, reason=NotAnalysedReason.LOCALIZER, series=4)
    quarantine_chosen(database)
    withdraw(database)
    assert states(database) == ["QUARANTINED", "RECEIVING", "RECEIVING", "NOT_ANALYSED"]
    jobs = {job.id: job for job in claim(database, "me")}
    assert set(jobs) == {2, 3}
    assert close_series(database, jobs[2], "me", lease_s=60)
    assert conclude_series(database, jobs[2], "me", conclusion(database, jobs[2], Triage.NEGATIVE))
    assert (study_row(database).triage, study_row(database).withdrawn) == ("negative", False)


def test_series_that_differ_after_a_withdrawal_are_both_shown(database: Database) -> None:
    conclude(database, Triage.POSITIVE, series=1)
    conclude(database, Triage.NEGATIVE, series=2)
    conclude(database, Triage.INDETERMINATE, series=3)
    quarantine_chosen(database)
    withdraw(database)
    jobs = {job.id: job for job in claim(database, "me")}
    for series_id, triage in ((3, Triage.INDETERMINATE), (2, Triage.NEGATIVE)):
        assert close_series(database, jobs[series_id], "me", lease_s=60)
        done = conclusion(database, jobs[series_id], triage)
        assert conclude_series(database, jobs[series_id], "me", done)
    assert done.plan is not None
    assert [one.triage for one in done.plan.other_series] == [Triage.NEGATIVE]
    assert study_row(database).triage == "indeterminate"


@pytest.mark.parametrize("ends", ["FAILED", "QUARANTINED", "REJECTED"])
def test_the_next_best_is_chosen_where_the_chosen_series_has_no_result(database: Database, ends: str) -> None:
    decline(database, reason=OTHER_CHOSEN, series=2)
    receive(database, received(1))
    change(database, SeriesRow, attempts=2)
    (job,) = claim(database, "me")
    if ends == "FAILED":
        assert fail_attempt(database, job, "me", "ValueError", retry_s=0)
    else:
        assert quarantine_series(database, job.id, "me", NotAnalysedReason.TWO_PATIENTS)
    if ends == "REJECTED":
        reject_quarantined(database, "1.2.1.1")
    assert states(database) == ["RECEIVING", ends]


def test_a_withdrawal_is_void_where_the_series_was_released_meanwhile(database: Database) -> None:
    conclude(database, Triage.POSITIVE)
    quarantine_chosen(database)
    (study,) = studies_to_withdraw(database)
    release_quarantined(database, "1.2.1")
    assert not withdraw_study(database, study, [report_object(2)], [PACS])
    assert len(rows(database, DeliveryRow)) == 1


def test_a_quarantined_series_is_never_claimed(database: Database) -> None:
    receive(database, received(1))
    (job,) = claim(database, "me")
    assert score(database, job, "me")
    quarantine_series(database, job.id, "me", NotAnalysedReason.TWO_STUDIES)
    make_due(database)
    assert claim(database, "me") == []
    assert load_content(database, job.id, MODEL).stamp == (1, 1)
