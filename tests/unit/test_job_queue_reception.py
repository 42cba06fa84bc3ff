"""What a received slice means to the queue: new, a version, a duplicate, ours, or kept only."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ich_node.database import Database, InstanceRow, PlaneRow, ResultRow, SeriesRow, StudyRow
from ich_node.job_queue import (
    SendingAssociation,
    look_up,
    release_association,
    requeue,
)
from ich_node.job_queue.retention import forget_expired_images
from ich_node.records import InstanceState, Reception, RetentionRules, SeriesState
from tests.unit.queueing import (
    change,
    claim,
    make_due,
    open_queue,
    receive,
    received,
    rows,
    score,
)

DAYS = RetentionRules(images_days=14, not_head_days=1, results_days=365, commitment_wait_h=24)
SENDER = SendingAssociation("first", "receiver")


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    database = open_queue(tmp_path)
    yield database
    database.close()


def forget_images(database: Database) -> None:
    change(database, SeriesRow, last_received_at=9)
    assert forget_expired_images(database, DAYS)


def test_slices_of_two_series_make_one_study(database: Database) -> None:
    receive(database, received(1, series=1), received(2, series=1), received(1, series=2))
    assert len(rows(database, StudyRow)) == 1
    assert [row.state for row in rows(database, SeriesRow)] == [SeriesState.RECEIVING] * 2
    assert [row.state for row in rows(database, InstanceRow)] == [InstanceState.RECEIVED] * 3


def test_the_same_bytes_again_change_nothing(database: Database) -> None:
    first = received(1)
    assert receive(database, first) is Reception.NEW
    before = rows(database, SeriesRow), rows(database, InstanceRow)
    assert look_up(database, first.sop_instance_uid, first.sha256) is Reception.DUPLICATE
    assert receive(database, received(1)) is Reception.DUPLICATE
    assert (rows(database, SeriesRow), rows(database, InstanceRow)) == before


def test_other_bytes_of_an_instance_are_a_version_and_the_older_one_counts_no_more(database: Database) -> None:
    receive(database, received(1))
    (job,) = claim(database, "me")
    assert score(database, job, "me")
    assert receive(database, received(1, version=2)) is Reception.VERSION
    assert [(row.current, row.state) for row in rows(database, InstanceRow)] == [(False, "DECODED"), (True, "RECEIVED")]


def test_classes_that_are_kept_but_not_analysed_wait_for_no_decoder(database: Database) -> None:
    receive(database, received(1, modality="SR"), analysed=False)
    assert [row.state for row in rows(database, InstanceRow)] == [InstanceState.NOT_NEEDED]
    assert claim(database, "me") == []


def test_an_object_that_this_node_made_is_counted_and_starts_nothing(database: Database) -> None:
    receive(database, received(1))
    with database.writing() as connection:
        values = {
            "study_id": 1, "revision": 1, "kind": "SR", "encoding": "x", "preference": 0, "sop_class_uid": "1.2",
            "sop_instance_uid": "2.25.7", "sha256": "x", "created_at": 0.0,
        }  # fmt: skip
        connection.execute(ResultRow.__table__.insert().values(values))
    before = rows(database, SeriesRow)
    assert look_up(database, "2.25.7", "whatever a PACS made of it") is Reception.OWN_RESULT
    assert look_up(database, "2.25.7", "and again") is Reception.OWN_RESULT
    assert [row.returned_count for row in rows(database, ResultRow)] == [2]
    assert rows(database, SeriesRow) == before


# ------------------------------------------------------------------------------------------ being due


def test_a_series_is_due_after_the_longest_wait_unless_it_is_released(database: Database) -> None:
    receive(database, received(1), association=SENDER)
    receive(database, received(1, series=2))
    release_association(database, SENDER, quiet_s=3, max_wait_s=20)
    released, held = rows(database, SeriesRow)
    assert released.due_at == pytest.approx(released.last_received_at + 3, abs=0.001)
    assert held.due_at == pytest.approx(held.last_received_at + 20, abs=0.001)


def test_another_slice_after_the_release_makes_the_series_wait_again(database: Database) -> None:
    receive(database, received(1), association=SENDER)
    release_association(database, SENDER, quiet_s=3, max_wait_s=20)
    receive(database, received(2))
    (row,) = rows(database, SeriesRow)
    assert row.due_at == pytest.approx(row.last_received_at + 20, abs=0.001)


@pytest.mark.parametrize("state", [one for one in SeriesState if one is not SeriesState.QUARANTINED])
def test_a_new_slice_reopens_a_series_from_every_state(database: Database, state: SeriesState) -> None:
    receive(database, received(1))
    change(database, SeriesRow, state=state, attempts=3, not_before=time.time() + 1000, reason="NOT_AXIAL", detail="x")
    receive(database, received(2))
    (row,) = rows(database, SeriesRow)
    assert (row.state, row.attempts, row.not_before, row.reason, row.detail) == ("RECEIVING", 0, 0, None, None)
    assert len(claim(database, "me")) == 1


def test_a_quarantined_series_stays_where_it_is(database: Database) -> None:
    receive(database, received(1))
    change(database, SeriesRow, state=SeriesState.QUARANTINED)
    assert receive(database, received(2)) is Reception.NEW
    assert [row.state for row in rows(database, SeriesRow)] == [SeriesState.QUARANTINED]
    assert len(rows(database, InstanceRow)) == 2


# --------------------------------------------------------------------------- after the images were deleted


@pytest.fixture
def deleted(database: Database) -> Database:
    """A concluded series whose images were deleted after their days."""
    receive(database, received(1), received(2))
    (job,) = claim(database, "me")
    score(database, job, "me")
    change(
        database, SeriesRow, state=SeriesState.CONCLUDED, lease_owner=None, lease_expires_at=None, last_received_at=9
    )
    forget_images(database)
    return database


def test_rows_with_uids_and_hashes_stay_when_images_are_deleted(deleted: Database) -> None:
    assert [(row.path, row.sha256) for row in rows(deleted, InstanceRow)] == [
        (None, received(1).sha256),
        (None, received(2).sha256),
    ]
    assert rows(deleted, PlaneRow) == []


def test_a_study_sent_again_after_deletion_is_stored_and_starts_nothing(deleted: Database) -> None:
    again = received(1)
    assert look_up(deleted, again.sop_instance_uid, again.sha256) is None
    assert receive(deleted, again, received(3)) is Reception.KEPT_ONLY
    assert [row.path is None for row in rows(deleted, InstanceRow)] == [False, True, False]
    assert [row.state for row in rows(deleted, SeriesRow)] == [SeriesState.CONCLUDED]
    make_due(deleted)
    assert claim(deleted, "me") == []


def test_a_study_sent_again_after_deletion_is_kept_for_its_days_again(deleted: Database) -> None:
    receive(deleted, received(1), received(3))
    assert forget_expired_images(deleted, DAYS) == []


def test_requeue_starts_a_study_that_was_sent_again_after_deletion(deleted: Database) -> None:
    receive(deleted, received(1), received(3))
    assert requeue(deleted, uid="1.2.1") == 1
    (job,) = claim(deleted, "me")
    assert score(deleted, job, "me")
    assert {row.members[0][0] for row in rows(deleted, PlaneRow)} == {"1.2.1.1.1", "1.2.1.1.3"}


def test_a_failed_series_whose_images_went_can_be_queued_again_and_comes_to_an_end(database: Database) -> None:
    from ich_node.job_queue import close_series, load_content

    receive(database, received(1), received(2))
    change(database, SeriesRow, state=SeriesState.FAILED)  # with slices that were never decoded
    forget_images(database)
    receive(database, received(2))
    assert requeue(database, uid="1.2.1.1") == 1
    (job,) = claim(database, "me")
    assert score(database, job, "me")
    assert load_content(database, job.id, "x").waiting == 0
    assert close_series(database, job, "me", lease_s=60)
