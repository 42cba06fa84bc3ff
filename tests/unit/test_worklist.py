"""Pages of the worklist: in order, without gap or repeat, by every filter and search, from indexes."""

from __future__ import annotations

import itertools
import re
import time
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event, insert, update

from ich_node.database import AlertRow, Database, DeliveryRow, InstanceRow, SeriesRow, StudyRow
from ich_node.queries import Order, Shown, WorklistQuery, study_status, what_waits, worklist, worklist_line
from tests.postgresql import on_sqlite
from tests.unit.queueing import copied_queue, receive, received

_numbers = itertools.count(1)


@pytest.fixture
def database(tmp_path: Path, migrated_database: Path) -> Iterator[Database]:
    database = copied_queue(migrated_database, tmp_path)
    yield database
    database.close()


def add(database: Database, triage: str | None = None, *, state: str = "CONCLUDED", **of: Any) -> str:
    """A study with one series; give its UID."""
    number = next(_numbers)
    series = {
        "state": state, "modality": "CT", "due_at": 0.0, "first_received_at": 0.0, "last_received_at": float(number),
        "calling_ae_title": "CT1", "remote_address": "10.0.0.1", "station_name": "", "reason": None,
        "series_instance_uid": f"1.2.{number}.7",
    }  # fmt: skip
    study = {"study_instance_uid": f"1.2.{number}", "triage": triage, "revision": 1, "created_at": float(number)}
    for name, value in of.items():
        (series if name in series else study)[name] = value
    if of.get("withdrawn"):
        study["reason"] = series["reason"]
    if triage is None and state == "CONCLUDED":
        series |= {"state": "NOT_ANALYSED", "reason": series["reason"] or "NOT_HEAD"}
    with database.writing() as connection:
        study_id = connection.execute(insert(StudyRow).values(study)).inserted_primary_key[0]
        connection.execute(insert(SeriesRow).values(series | {"study_id": study_id}))
    return str(study["study_instance_uid"])


def study_id(database: Database, uid: str) -> int:
    with database.reading() as connection:
        return int(connection.execute(StudyRow.__table__.select().where(StudyRow.study_instance_uid == uid)).one().id)


def alert(database: Database, uid: str, state: str, **of: Any) -> None:
    values = {
        "identifier": f"A{next(_numbers)}", "study_id": study_id(database, uid), "revision": 1, "kind": "result",
        "outcome": "positive", "channel": "ris", "channel_kind": "hl7", "step": 0, "state": state,
        "next_attempt_at": 0.0, "created_at": 0.0,
    }  # fmt: skip
    with database.writing() as connection:
        connection.execute(insert(AlertRow).values(values | of))


def deliver(database: Database, uid: str, state: str) -> None:
    values = {
        "study_id": study_id(database, uid), "revision": 1, "kind": "REPORT", "destination": "pacs",
        "ae_title": "PACS", "host": "h", "port": 104, "state": state, "next_attempt_at": 0.0, "created_at": 0.0,
    }  # fmt: skip
    with database.writing() as connection:
        connection.execute(insert(DeliveryRow).values(values))


def uids(database: Database, limit: int = 50, **asked: Any) -> list[str]:
    page = worklist(database, WorklistQuery(**asked), limit)
    return [one.status.study_instance_uid for one in page.studies]


# -------------------------------------------------------------------------------------------------- orders


def test_the_newest_come_first(database: Database) -> None:
    added = [add(database, triage) for triage in ("negative", "positive", None)]
    assert uids(database) == added[::-1]


def test_the_most_urgent_come_first_and_of_each_the_newest(database: Database) -> None:
    said = ("negative", "positive", None, "indeterminate", "positive", "negative")
    added = dict(enumerate(add(database, triage) for triage in said))
    assert uids(database, order=Order.URGENT) == [added[one] for one in (4, 1, 3, 2, 5, 0)]


def test_an_empty_worklist_is_a_page(database: Database) -> None:
    for order in Order:
        page = worklist(database, WorklistQuery(order))
        assert (page.studies, page.next_after) == ((), "")


@pytest.mark.parametrize("order", Order)
@pytest.mark.parametrize("limit", [1, 2, 3, 7])
def test_pages_have_no_gap_and_no_repeat_while_studies_come_in(database: Database, order: Order, limit: int) -> None:
    said = ("negative", "positive", None, "indeterminate", "positive", "negative", "negative")
    there = [add(database, triage) for triage in said]
    whole = uids(database, order=order)
    assert sorted(whole) == sorted(there)
    seen, after = [], ""
    while True:
        page = worklist(database, WorklistQuery(order, after=after), limit)
        seen += [one.status.study_instance_uid for one in page.studies]
        after = page.next_after
        if not after:
            break
        add(database, "positive")
    assert [one for one in seen if one in there] == whole
    assert len(seen) == len(set(seen))


def test_the_last_page_names_no_next_one(database: Database) -> None:
    for _ in range(4):
        add(database)
    assert worklist(database, WorklistQuery(), 4).next_after == ""
    assert worklist(database, WorklistQuery(), 3).next_after != ""


@pytest.mark.parametrize("after", ["x", "0", "0.", ".1", "1.5", "4.1", "0.-1", "0." + "9" * 30, "٣.1", "0.1.2"])
def test_a_place_that_no_page_named_is_refused(database: Database, after: str) -> None:
    with pytest.raises(ValueError, match="no page ended there"):
        worklist(database, WorklistQuery(after=after))


# ------------------------------------------------------------------------------------------------- filters


def test_every_filter_shows_what_it_says_in_both_orders(database: Database) -> None:
    positive, doubtful, negative = (add(database, one) for one in ("positive", "indeterminate", "negative"))
    nothing = add(database)
    coming, complete = add(database, state="RECEIVING"), add(database, state="COMPLETE")
    failed, odd = add(database, state="FAILED"), add(database, state="QUARANTINED")
    taken_back = add(database, None, withdrawn=True, reason="NOT_HEAD")
    told, unanswered, seen = (add(database, "positive") for _ in range(3))
    alert(database, told, "SENT", sent_at=1.0)
    alert(database, unanswered, "UNANSWERED", sent_at=1.0)
    alert(database, seen, "ACKNOWLEDGED", sent_at=1.0, acknowledged_at=2.0)
    undelivered, untold = add(database, "negative"), add(database, "positive")
    deliver(database, undelivered, "DEAD")
    alert(database, untold, "DEAD")
    alert(database, seen, "SENT", study_id=None, kind="condition")
    expected = {
        Shown.POSITIVE: {positive, told, unanswered, seen, untold},
        Shown.INDETERMINATE: {doubtful},
        Shown.NEGATIVE: {negative, undelivered},
        Shown.NOT_ANALYSED: {nothing, failed, odd, taken_back},
        Shown.IN_PROGRESS: {coming, complete},
        Shown.UNACKNOWLEDGED: {told, unanswered},
        Shown.NEEDS_A_PERSON: {failed, odd, taken_back, undelivered, unanswered, untold},
    }
    assert set(expected) | {Shown.ALL} == set(Shown)
    for order in Order:
        for shown, studies in expected.items():
            found = uids(database, order=order, shown=shown)
            assert set(found) == studies, (order, shown)
            assert len(found) == len(studies)
        assert len(uids(database, order=order)) == 14


def test_what_waits_is_counted(database: Database) -> None:
    for state in ("RECEIVING", "COMPLETE", "FAILED", "QUARANTINED", "CONCLUDED"):
        uid = add(database, "positive" if state == "CONCLUDED" else None, state=state)
    for number, state in enumerate(("PENDING", "SENDING", "DEAD", "DELIVERED")):
        deliver(database, add(database, "negative"), state)
        alert(database, uid, "DEAD", step=number)
    alert(database, uid, "UNANSWERED", step=9)
    waiting = what_waits(database)
    counted = (waiting.in_progress, waiting.undelivered, waiting.failed, waiting.quarantined, waiting.dead,
               waiting.unanswered)  # fmt: skip
    assert counted == (2, 2, 1, 1, 5, 1)


# ------------------------------------------------------------------------------------------------- search


@pytest.fixture(params=[20_000, 1], ids=["rare", "common"])
def either_way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is found often is looked for in another way than what is found seldom."""
    monkeypatch.setattr(import_module("ich_node.queries.worklist"), "_COMMON", request.param)


@pytest.mark.usefixtures("either_way")
def test_a_search_finds_the_beginning_of_uid_station_and_sender(database: Database) -> None:
    one = add(database, station_name="Neuro_CT 100%", calling_ae_title="SIEMENS1")
    two = add(database, station_name="NEUROXCT", calling_ae_title="GE'; DROP TABLE study --")
    three = add(database, station_name="Ångström", series_instance_uid="1.9.77.5")
    assert uids(database, search="neuro") == [two, one]
    assert uids(database, search="Neuro_") == [one], "no sign stands for another"
    assert uids(database, search="NEURO_CT 100%") == [one]
    assert uids(database, search="%") == []
    assert uids(database, search="euro") == []
    assert uids(database, search="siemens") == [one]
    assert uids(database, search="GE';") == [two]
    assert uids(database, search="Ång") == [three]
    assert uids(database, search=one) == [one]
    assert uids(database, search="1.9.77") == [three]
    assert set(uids(database, search="1.2.")) == {one, two, three}
    assert uids(database, search="  1.9.77.5  ") == [three]
    for odd in ("\\", "'", '"', "\x00", "\U0010ffff", "[a-z]*", "x" * 500, "1.2.3.4.5.6.7.8"):
        assert uids(database, search=odd) == [], odd


@pytest.mark.usefixtures("either_way")
def test_search_filter_order_and_paging_go_together(database: Database) -> None:
    added = [
        add(database, triage, station_name=f"NEURO{station}")
        for triage in ("positive", "negative") for station in (1, 2, 1)
    ]  # fmt: skip
    assert uids(database, search="neuro1", shown=Shown.POSITIVE) == [added[2], added[0]]
    first = worklist(database, WorklistQuery(Order.URGENT, search="NEURO1"), 3)
    rest = worklist(database, WorklistQuery(Order.URGENT, search="NEURO1", after=first.next_after), 3)
    found = [one.status.study_instance_uid for one in (*first.studies, *rest.studies)]
    assert found == [added[2], added[0], added[5], added[3]]


@on_sqlite
def test_pages_and_searches_are_read_from_indexes(database: Database) -> None:
    """Without one a page would take as long as there are studies; what is really asked is looked at."""
    add(database, station_name="NEURO", calling_ae_title="CT1")
    asked: list[tuple[str, Any]] = []

    def note(_connection: Any, _cursor: Any, statement: str, values: Any, *_more: Any) -> None:
        asked.append((statement, values))

    event.listen(database.engine, "before_cursor_execute", note)
    for order, shown in itertools.product(Order, Shown):
        worklist(database, WorklistQuery(order, shown))
    for search in ("neuro", "CT1", "1.2."):
        worklist(database, WorklistQuery(search=search))
    event.remove(database.engine, "before_cursor_execute", note)
    statements = [one for one in asked if one[0].startswith("SELECT")]
    assert len(statements) > 20
    withdrawn = False
    with database.reading() as connection:
        for statement, values in statements:
            plan = [row.detail for row in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", values)]
            if re.search(r"WHERE withdrawn\b", statement):
                withdrawn = True
                assert any("study_withdrawn" in one for one in plan), (statement, plan)
            assert not [one for one in plan if re.match(r"SCAN (series|instance|delivery|alert)\b(?!.*USING)", one)], (
                statement, plan,
            )  # fmt: skip
    assert withdrawn


# --------------------------------------------------------------------------------------------------- lines


def test_a_line_says_from_where_how_much_and_which_file_knows_the_patient(database: Database) -> None:
    receive(database, *(received(number, study=70_000, calling_ae_title="CT9") for number in (1, 2, 3)))
    with database.writing() as connection:
        connection.execute(update(SeriesRow).values(station_name="NEURO", last_received_at=time.time()))
        newest = connection.execute(InstanceRow.__table__.select().order_by(InstanceRow.id.desc())).first()
        connection.execute(update(InstanceRow).where(InstanceRow.id == newest.id).values(path=None))
    line = worklist_line(database, "1.2.70000")
    assert line is not None
    assert (line.slices, line.station_name, line.calling_ae_title) == (3, "NEURO", "CT9")
    assert line.newest_file is not None, "the newest that is still there"
    assert line.newest_file.endswith(".dcm")
    (listed,) = worklist(database, WorklistQuery()).studies
    assert listed == line


def test_a_study_that_there_is_not_has_no_line(database: Database) -> None:
    assert worklist_line(database, "1.2.3") is None
    assert study_status(database, "1.2.3") is None


def test_a_page_of_studies_takes_as_many_questions_as_one(database: Database) -> None:
    for _ in range(30):
        add(database, "positive")
    asked: list[str] = []
    event.listen(database.engine, "before_cursor_execute", lambda *values: asked.append(values[2]))
    worklist(database, WorklistQuery(), 1)
    for_one = len(asked)
    assert for_one
    asked.clear()
    worklist(database, WorklistQuery(), 30)
    assert len(asked) == for_one
