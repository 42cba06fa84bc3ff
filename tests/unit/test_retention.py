"""What is deleted after its days, what stays, and that what was deleted is on record."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event, insert, update

from ich_node.database import (
    Database,
    DeliveryRow,
    InstanceRow,
    PlaneRow,
    ResultRow,
    SeriesRow,
    StudyRow,
    open_database,
)
from ich_node.job_queue import DeliveryRules, claim_deliveries, known_paths, mark_delivered, mark_held, mark_refused
from ich_node.job_queue.deleting import forget_study
from ich_node.job_queue.legal_holds import HOLDS, lift_hold, list_holds, place_hold, restore_holds, save_holds
from ich_node.job_queue.retention import (
    Deletion,
    files_to_delete,
    forget_expired_images,
    forget_expired_results,
    note_deleted,
    what_stays,
)
from ich_node.queries import node_status
from ich_node.records import RetentionRules, SeriesState, Triage
from tests.unit.concluding import closed_job, conclude, conclude_series, conclusion, decline
from tests.unit.queueing import change, open_queue, receive, received, rows

DAY_S = 86400.0
RULES = RetentionRules(images_days=14, not_head_days=1, results_days=365, commitment_wait_h=24)
STATE = Path("/state")


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    database = open_queue(tmp_path)
    yield database
    database.close()


def deliver(database: Database, *, commitment: bool = False) -> None:
    for delivery in claim_deliveries(database, "me", STATE, lease_s=60):
        mark_delivered(database, delivery, "me", delivery.objects[0].sop_instance_uid, 0, commitment=commitment)


def age(database: Database, days: float) -> None:
    then = time.time() - days * DAY_S
    change(database, SeriesRow, last_received_at=then)
    change(database, ResultRow, created_at=then)
    change(database, DeliveryRow, finished_at=then)


def gone(database: Database) -> list[tuple[str, int]]:
    """Forget what may go; give what and how many files."""
    deletions = forget_expired_images(database, RULES) + forget_expired_results(database, RULES, lambda _: 7)
    return [(one.what, one.files) for one in deletions]


def test_images_go_after_their_days_and_what_is_no_head_goes_sooner(database: Database) -> None:
    conclude(database, Triage.NEGATIVE, study=1)
    decline(database, study=2, head=False)
    deliver(database)
    age(database, 0.9)
    assert forget_expired_images(database, RULES) == []
    age(database, 1.1)
    assert forget_expired_images(database, RULES) == [Deletion(2, "images", 1, 1000, "not_head_days = 1")]
    age(database, 13.9)
    assert forget_expired_images(database, RULES) == []
    age(database, 14.1)
    assert forget_expired_images(database, RULES) == [Deletion(1, "images", 1, 1000, "images_days = 14")]
    assert rows(database, PlaneRow) == []
    assert [row.path for row in rows(database, InstanceRow)] == [None, None]
    assert all(row.sha256 and row.sop_instance_uid for row in rows(database, InstanceRow))


@pytest.mark.parametrize("state", [SeriesState.RECEIVING, SeriesState.COMPLETE, SeriesState.QUARANTINED])
def test_images_of_a_series_that_is_not_settled_stay(database: Database, state: SeriesState) -> None:
    conclude(database, Triage.NEGATIVE)
    deliver(database)
    age(database, 400)
    change(database, SeriesRow, state=state)
    assert forget_expired_images(database, RULES) == []
    change(database, SeriesRow, state=SeriesState.CONCLUDED)
    assert forget_expired_images(database, RULES)


def test_nothing_of_a_study_goes_while_another_series_of_it_arrives(database: Database) -> None:
    conclude(database, Triage.NEGATIVE)
    deliver(database)
    receive(database, received(2, series=2))
    age(database, 400)
    assert gone(database) == []
    with database.writing() as connection:
        another = SeriesRow.state == SeriesState.RECEIVING
        connection.execute(update(SeriesRow).where(another).values(state=SeriesState.CONCLUDED))
    assert gone(database) == [("images", 2), ("reports", 2)]


@pytest.mark.parametrize(
    ("delivery", "kept"),
    [
        ({"state": "PENDING"}, True),
        ({"state": "SENDING"}, True),
        ({"state": "DEAD"}, True),
        ({"state": "DELIVERED", "commitment_ask_at": 5.0}, True),
        ({"state": "DELIVERED", "commitment_ask_at": None}, False),
        ({"state": "COMMITTED"}, False),
        ({"state": "SUPERSEDED"}, False),
        ({"state": "HELD"}, False),
    ],
)
def test_files_stay_until_the_result_is_delivered_and_committed_where_asked(
    database: Database, delivery: dict[str, Any], kept: bool
) -> None:
    conclude(database, Triage.NEGATIVE)
    change(database, DeliveryRow, **delivery)
    age(database, 400)
    assert bool(what_stays(database, RULES).get("retention")) is kept
    assert gone(database) == ([] if kept else [("images", 1), ("reports", 2)])


def test_without_a_destination_the_days_alone_decide(database: Database) -> None:
    job = closed_job(database)
    assert conclude_series(database, job, "me", conclusion(database, job, Triage.NEGATIVE, destinations=()))
    age(database, 13.9)
    assert gone(database) == []
    age(database, 14.1)
    assert gone(database) == [("images", 1)]


def test_of_the_reports_of_a_dead_delivery_people_are_told(database: Database) -> None:
    conclude(database, Triage.NEGATIVE)
    (delivery,) = claim_deliveries(database, "me", STATE, lease_s=60)
    mark_refused(database, delivery, "me", "status 0xC000", 0xC000, DeliveryRules(refused_tries=1))
    assert what_stays(database, RULES) == {}, "its days have not passed"
    age(database, 15)
    assert what_stays(database, RULES) == {
        "retention": "images of 1 studies are kept past their days, and the disk fills up: "
        "their results are DEAD, not delivered, or not committed"
    }


def test_of_what_is_not_committed_in_time_people_are_told(database: Database) -> None:
    conclude(database, Triage.NEGATIVE)
    deliver(database, commitment=True)
    age(database, 0.9)
    assert what_stays(database, RULES) == {}
    age(database, 1.1)
    text = "destination pacs has not committed to 1 objects within 24 h: ask its administrator"
    assert what_stays(database, RULES) == {"commitment pacs": text}


def test_what_a_destination_does_not_take_beside_the_report_keeps_nothing(database: Database) -> None:
    conclude(database, Triage.NEGATIVE)
    (delivery,) = claim_deliveries(database, "me", STATE, lease_s=60)
    mark_held(database, delivery, "me", "the destination accepts none of the object's storage classes")
    age(database, 15)
    assert gone(database) == [("images", 1)]


# -------------------------------------------------------------------------------------------- legal hold


def test_of_a_study_under_legal_hold_nothing_goes_until_it_is_lifted(database: Database) -> None:
    conclude(database, Triage.NEGATIVE, study=1)
    conclude(database, Triage.NEGATIVE, study=2)
    deliver(database)
    assert place_hold(database, "1.2.1", "claim 4711", "legal")
    age(database, 400)
    assert gone(database) == [("images", 1), ("reports", 2)], "of the other"
    assert [row.path is None for row in rows(database, InstanceRow)] == [False, True]

    assert lift_hold(database, "1.2.1", "legal")
    assert gone(database) == [("images", 1), ("reports", 2)]


def test_who_held_what_and_why_stays_on_record(database: Database) -> None:
    conclude(database, Triage.NEGATIVE)
    assert not place_hold(database, "1.2.9", "no such study", "legal")
    assert not lift_hold(database, "1.2.1", "legal"), "it is not held"
    assert place_hold(database, "1.2.1", "claim 4711", "legal")
    assert not place_hold(database, "1.2.1", "another", "somebody"), "it is held"
    assert node_status(database).legal_holds == 1
    assert node_status(database).studies[0].legal_hold == "claim 4711 (legal)"
    assert lift_hold(database, "1.2.1", "head of legal")
    assert node_status(database).legal_holds == 0
    assert node_status(database).studies[0].legal_hold == ""
    assert list_holds(database) == []
    (hold,) = list_holds(database, lifted_too=True)
    assert (hold.study_instance_uid, hold.reason, hold.placed_by, hold.lifted_by) == (
        "1.2.1", "claim 4711", "legal", "head of legal",
    )  # fmt: skip
    assert place_hold(database, "1.2.1", "again", "legal")


def test_a_hold_of_a_study_that_a_rebuild_found_nothing_of_stays_and_holds_it_when_it_comes_again(
    tmp_path: Path, database: Database
) -> None:
    conclude(database, Triage.NEGATIVE, study=1)
    assert place_hold(database, "1.2.1", "claim 4711", "legal")
    assert save_holds(database, tmp_path)
    (tmp_path / "anew").mkdir()
    anew = open_queue(tmp_path / "anew")
    assert restore_holds(anew, tmp_path) == 0
    conclude(anew, Triage.NEGATIVE, study=2)
    assert place_hold(anew, "1.2.2", "another", "legal")
    assert save_holds(anew, tmp_path)
    assert "claim 4711" in (tmp_path / HOLDS).read_text()
    conclude(anew, Triage.NEGATIVE, study=1)
    assert save_holds(anew, tmp_path)
    assert [(hold.study_instance_uid, hold.reason) for hold in list_holds(anew)] == [
        ("1.2.2", "another"), ("1.2.1", "claim 4711"),
    ]  # fmt: skip
    assert lift_hold(anew, "1.2.1", "legal")
    assert save_holds(anew, tmp_path)
    assert not save_holds(anew, tmp_path)
    assert [hold.study_instance_uid for hold in list_holds(anew)] == ["1.2.2"]
    anew.close()


def test_a_damaged_file_of_holds_is_written_anew_from_the_database(
    tmp_path: Path, database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    conclude(database, Triage.NEGATIVE, study=1)
    assert place_hold(database, "1.2.1", "claim 4711", "legal")
    (tmp_path / HOLDS).write_bytes(b"[{\xff")
    assert save_holds(database, tmp_path)
    assert (tmp_path / "legal-holds.damaged").read_bytes() == b"[{\xff"
    assert "written anew" in caplog.text
    assert "claim 4711" in (tmp_path / HOLDS).read_text()


# ---------------------------------------------------------------------------------------------- on record


def test_what_was_deleted_is_on_record_by_study_and_rule(database: Database) -> None:
    for number in (1, 2, 3):
        conclude(database, Triage.NEGATIVE, study=1, number=number)
    deliver(database)
    age(database, 366)
    gone(database)
    (study,) = node_status(database, uid="1.2.1").studies
    assert [(one.what, one.files, one.size_bytes, one.rule) for one in study.deletions] == [
        ("images", 3, 3000, "images_days = 14"),
        ("reports", 6, 42, "results_days = 365"),
    ]
    assert time.time() - study.deletions[0].deleted_at < 60
    assert len(rows(database, StudyRow)) == 1


def test_what_is_forgotten_is_listed_until_it_is_gone_from_the_disk(database: Database) -> None:
    conclude(database, Triage.NEGATIVE)
    deliver(database)
    before = known_paths(database)
    age(database, 366)
    gone(database)
    assert set(files_to_delete(database)) == before
    assert known_paths(database) == before, "the receiver must not adopt what is about to go"
    note_deleted(database, files_to_delete(database))
    assert files_to_delete(database) == []
    assert known_paths(database) == set()


def test_much_goes_in_several_transactions(database: Database) -> None:
    for number in range(5):
        conclude(database, Triage.NEGATIVE, study=number)
    deliver(database)
    age(database, 15)
    batches = []
    while some := forget_expired_images(database, RULES, limit=2):
        batches.append(sum(one.files for one in some))
    assert batches == [2, 2, 1]


def test_the_database_is_free_while_a_store_is_asked_how_long_its_files_are(database: Database) -> None:
    """One that does not answer is waited for; images come meanwhile."""
    for number in (1, 2):
        conclude(database, Triage.NEGATIVE, study=number)
    deliver(database)
    other = open_database(database.url, busy_timeout_s=0.2)

    def size_of(_path: str) -> int:
        with other.writing():
            return 7

    first, _ = (one.study_instance_uid for one in rows(database, StudyRow))
    done = forget_study(database, first, "a test", size_of, confirmed=True)
    assert [(one.what, one.files, one.size_bytes) for one in done.gone] == [("images", 1, 1000), ("reports", 2, 14)]
    age(database, 366)
    expired = forget_expired_results(database, RULES, size_of)
    assert [(one.what, one.files, one.size_bytes) for one in expired] == [("reports", 2, 14)]
    other.close()


def test_a_result_that_comes_while_its_study_is_being_deleted_goes_with_it(database: Database) -> None:
    conclude(database, Triage.NEGATIVE)
    deliver(database)
    known = rows(database, ResultRow)
    asked: list[str] = []

    def size_of(path: str) -> int:
        if not asked:
            other = known[0]._asdict() | {"path": "results/other.dcm", "sop_instance_uid": "2.25.9", "kind": "SUMMARY"}
            del other["id"]
            with database.writing() as connection:
                connection.execute(insert(ResultRow).values(other))
        asked.append(path)
        return 7

    (study,) = rows(database, StudyRow)
    done = forget_study(database, study.study_instance_uid, "a test", size_of, confirmed=True)
    assert [(one.what, one.files, one.size_bytes) for one in done.gone] == [("images", 1, 1000), ("reports", 3, 21)]
    assert asked == [*(one.path for one in known), "results/other.dcm"]
    assert [one.path for one in rows(database, ResultRow)] == [None, None, None]


def test_any_number_of_files_goes_by_the_same_statements(database: Database) -> None:
    """A connection keeps each statement that differs prepared: with one for each number of files memory grows."""
    for number in range(3):
        conclude(database, Triage.NEGATIVE, study=number)
    deliver(database)
    age(database, 366)
    statements: list[str] = []
    event.listen(database.engine, "before_cursor_execute", lambda *said: statements.append(said[2]))

    def statements_of(files: int) -> set[str]:
        statements.clear()
        assert sum(one.files for one in forget_expired_images(database, RULES, limit=files)) == files
        assert sum(one.files for one in forget_expired_results(database, RULES, lambda _: 7, limit=files)) == files
        note_deleted(database, files_to_delete(database, limit=files))
        return set(statements)

    assert statements_of(2) == statements_of(1)
