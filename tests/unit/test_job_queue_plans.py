"""What a study says once one of its series is concluded: which triage, which revision, and beside what."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from ich_node.database import Database, InstanceRow, SeriesRow, StudyRow
from ich_node.job_queue import ReportPlan, close_series, conclude_series, requeue
from ich_node.records import SeriesJob, Triage
from tests.unit.concluding import closed_job, conclude, conclusion, study_row
from tests.unit.queueing import change, claim, make_due, open_queue, rows

POSITIVE, INDETERMINATE, NEGATIVE = Triage.POSITIVE, Triage.INDETERMINATE, Triage.NEGATIVE


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    database = open_queue(tmp_path)
    yield database
    database.close()


def reopened(database: Database) -> SeriesJob:
    """The one series, closed again as it was."""
    change(database, SeriesRow, state="RECEIVING")
    make_due(database)
    (job,) = claim(database, "me")
    assert close_series(database, job, "me", lease_s=60)
    return job


def conclude_again(database: Database, triage: Triage, *, series: int = 1, same: bool = False) -> ReportPlan:
    """Conclude a series once more, of the same content or of other."""
    number = len(rows(database, InstanceRow)) + 1
    job = reopened(database) if same else closed_job(database, series=series, number=number)
    done = conclusion(database, job, triage)
    assert conclude_series(database, job, "me", done)
    assert done.plan is not None
    return done.plan


def others(plan: ReportPlan) -> list[tuple[str, Triage | None]]:
    return [(one.series_instance_uid, one.triage) for one in plan.other_series]


def test_the_first_conclusion_makes_revision_1_without_a_predecessor(database: Database) -> None:
    job = closed_job(database)
    plan = conclusion(database, job, NEGATIVE).plan
    assert plan is not None
    assert (plan.revision, plan.triage, plan.rests_on_series_id) == (1, NEGATIVE, 1)
    assert (plan.predecessors, plan.other_series) == ((), ())


def test_the_same_content_again_adds_no_revision(database: Database) -> None:
    conclude(database, POSITIVE)
    assert conclude_again(database, POSITIVE, same=True).revision is None
    assert study_row(database).revision == 1


def test_other_content_names_every_encoding_of_the_report_before(database: Database) -> None:
    conclude(database, NEGATIVE)
    plan = conclude_again(database, NEGATIVE)
    assert plan.revision == 2
    assert [one.sop_instance_uid for one in plan.predecessors] == ["2.25.1.1.0", "2.25.1.1.1"]


def test_a_higher_series_takes_the_study_over_and_shows_the_lower_one(database: Database) -> None:
    conclude(database, NEGATIVE, series=1)
    plan = conclude_again(database, POSITIVE, series=2)
    assert (plan.revision, plan.triage, plan.rests_on_series_id) == (2, POSITIVE, 2)
    assert others(plan) == [("1.2.1.1", NEGATIVE)]


def test_a_lower_series_is_shown_and_lowers_nothing(database: Database) -> None:
    conclude(database, POSITIVE, series=1)
    plan = conclude_again(database, NEGATIVE, series=2)
    assert (plan.revision, plan.triage, plan.rests_on_series_id) == (2, POSITIVE, 1)
    assert others(plan) == [("1.2.1.2", NEGATIVE)]


def test_a_series_that_agrees_adds_nothing_and_among_equals_the_first_stays(database: Database) -> None:
    conclude(database, POSITIVE, series=1)
    plan = conclude_again(database, POSITIVE, series=2)
    assert (plan.revision, plan.rests_on_series_id) == (None, 1)
    assert study_row(database).rests_on_series_id == 1


def test_agreement_after_disagreement_is_told(database: Database) -> None:
    conclude(database, POSITIVE, series=1)
    conclude_again(database, NEGATIVE, series=2)
    plan = conclude_again(database, POSITIVE, series=2)
    assert (plan.revision, plan.triage, plan.rests_on_series_id) == (3, POSITIVE, 1)
    assert others(plan) == []


def test_a_series_that_lowers_itself_leaves_the_study_to_the_highest(database: Database) -> None:
    conclude(database, POSITIVE, series=1)
    conclude_again(database, INDETERMINATE, series=2)
    plan = conclude_again(database, NEGATIVE, series=1)
    assert (plan.revision, plan.triage, plan.rests_on_series_id) == (3, INDETERMINATE, 2)
    assert others(plan) == [("1.2.1.1", NEGATIVE)]


def test_the_same_content_after_a_withdrawal_is_a_new_revision(database: Database) -> None:
    conclude(database, POSITIVE)
    change(database, StudyRow, withdrawn=True, triage=None)
    assert conclude_again(database, POSITIVE, same=True).revision == 2
    assert not study_row(database).withdrawn


def test_the_same_content_after_a_doubt_is_a_new_revision(database: Database) -> None:
    conclude(database, POSITIVE)
    change(database, StudyRow, doubted=True)
    assert conclude_again(database, POSITIVE, same=True).revision == 2


@pytest.mark.parametrize("uid", ["1.2.1.1", "1.2.1.2"])
def test_a_requeue_raises_the_revision_whatever_series_the_study_rests_on(database: Database, uid: str) -> None:
    conclude(database, POSITIVE, series=1)
    conclude_again(database, POSITIVE, series=2)
    assert requeue(database, uid=uid) == 1
    plan = conclude_again(database, POSITIVE, series=int(uid[-1]))
    assert plan.revision == 2
    assert study_row(database).reported_at is not None


def test_a_plan_for_a_study_that_moved_on_is_void(database: Database) -> None:
    job = closed_job(database)
    done = conclusion(database, job, NEGATIVE)
    change(database, StudyRow, revision=5)
    assert not conclude_series(database, job, "me", done)
