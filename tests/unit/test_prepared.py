"""Statements that run for every image: on SQLite by its driver, on a server by SQLAlchemy, with the same results."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import bindparam, delete, insert, select, update
from sqlalchemy.exc import IntegrityError

from ich_node.database import Database, Prepared, SeriesRow, StudyRow
from ich_node.job_queue import register_instance, rehearse
from ich_node.records import SeriesState
from tests.unit.queueing import open_queue, received

ADD_STUDY = Prepared(insert(StudyRow))
ADD_SERIES = Prepared(insert(SeriesRow))
FIND_STUDIES = Prepared(
    select(StudyRow.id, StudyRow.study_instance_uid.label("uid"), StudyRow.self_test, StudyRow.revision)
    .where(StudyRow.priority >= bindparam("least"))
    .order_by(StudyRow.id)
)
HURRY = Prepared(
    update(StudyRow).where(StudyRow.priority < bindparam("to")).values(priority=bindparam("to"), old=False)
)
FORGET = Prepared(delete(StudyRow).where(StudyRow.priority == bindparam("of")))


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    database = open_queue(tmp_path)
    yield database
    database.close()


@pytest.fixture
def studies(database: Database) -> Database:
    with database.writing() as connection:
        for number, is_test in enumerate((False, True)):
            values = {"study_instance_uid": f"1.{number}", "created_at": 5.0, "priority": number, "old": True}
            assert ADD_STUDY.enter(connection, values | {"self_test": is_test}) == number + 1
    return database


def test_rows_are_found_with_their_types_and_defaults(studies: Database) -> None:
    with studies.reading() as connection:
        found = FIND_STUDIES.all(connection, {"least": 0})
        assert [(one.id, one.uid, one.self_test, one.revision) for one in found] == [
            (1, "1.0", False, 0),
            (2, "1.1", True, 0),
        ]
        assert found[0].self_test is False
        assert FIND_STUDIES.first(connection, {"least": 1}).uid == "1.1"  # type: ignore[union-attr]
        assert FIND_STUDIES.first(connection, {"least": 2}) is None


def test_rows_that_were_changed_are_counted(studies: Database) -> None:
    with studies.writing() as connection:
        assert HURRY.change(connection, {"to": 1}) == 1
        assert HURRY.change(connection, {"to": 1}) == 0
        assert FORGET.change(connection, {"of": 1}) == 2


def test_what_the_database_refuses_is_an_error_of_sqlalchemy_without_values(studies: Database) -> None:
    with pytest.raises(IntegrityError) as refused, studies.writing() as connection:
        ADD_STUDY.enter(
            connection,
            {"study_instance_uid": "1.0", "created_at": 5.0, "priority": 0, "old": True, "self_test": False},
        )
    assert "'1.0'" not in str(refused.value)


def test_states_are_stored_as_their_words(studies: Database) -> None:
    series = {
        "study_id": 1, "series_instance_uid": "1.0.1", "modality": "CT", "state": SeriesState.RECEIVING, "due_at": 9.0,
        "first_received_at": 5.0, "last_received_at": 5.0, "calling_ae_title": "A", "remote_address": "",
    }  # fmt: skip
    with studies.writing() as connection:
        number = ADD_SERIES.enter(connection, series)
        found = connection.execute(select(SeriesRow.state, SeriesRow.attempts).where(SeriesRow.id == number)).one()
    assert tuple(found) == ("RECEIVING", 0)


def test_a_rehearsal_leaves_nothing(database: Database) -> None:
    rehearse(database, received(1), 30.0)
    with database.reading() as connection:
        assert connection.execute(select(StudyRow.id)).all() == []
        assert connection.execute(select(SeriesRow.id)).all() == []
    register_instance(database, received(1), max_wait_s=30.0, analysed=True)
    with database.reading() as connection:
        assert len(connection.execute(select(SeriesRow.id)).all()) == 1
