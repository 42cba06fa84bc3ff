"""The outbox of alerts is looked at ten times a second: that costs the same whatever the tables hold."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event

from ich_node.database import Database
from ich_node.job_queue.alert_entries import AlertPlan, enter_alerts
from ich_node.job_queue.alert_outbox import claim_alert, note_unanswered, send_again
from tests.alert_peers import listener
from tests.alerting import FINDING, QUICK, alerting_site, ris
from tests.postgresql import on_sqlite
from tests.unit.queueing import open_queue


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    database = open_queue(tmp_path)
    yield database
    database.close()


def plans_of(database: Database, work: Callable[[], Any]) -> list[str]:
    """How SQLite runs each statement of some work."""
    statements: list[tuple[str, Any]] = []

    def collect(_connection: Any, _cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        if statement.lstrip().startswith("SELECT"):
            statements.append((statement, parameters))

    event.listen(database.engine, "before_cursor_execute", collect)
    work()
    event.remove(database.engine, "before_cursor_execute", collect)
    with database.reading() as connection:
        return [
            row[3]
            for statement, parameters in statements
            for row in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters)
        ]


@on_sqlite
@pytest.mark.parametrize(
    "look",
    [
        lambda database: enter_alerts(database, lambda _: AlertPlan()),
        lambda database: claim_alert(database, "me", lease_s=60, busy=(), most_per_minute={"ris": 1}),
        note_unanswered,
    ],
    ids=["enter", "claim", "unanswered"],
)
def test_looking_for_work_reads_no_table_from_end_to_end(database: Database, look: Callable[[Database], Any]) -> None:
    plans = plans_of(database, lambda: look(database))
    assert plans
    scans = [plan for plan in plans if plan.startswith("SCAN")]
    own = ("study_to_alert", "study_early", "study_told_early", "alert_awaited")
    assert all(any(plan.endswith(f"INDEX {name}") for name in own) for plan in scans), plans


def test_what_is_dead_is_sent_again_with_the_same_identifier(tmp_path: Path) -> None:
    with (
        listener("mllp", tmp_path, "AR", "AR", "AA") as worklist,
        alerting_site(tmp_path / "state", alert_hl7=[ris(worklist.port)], alert=QUICK | {"refused_tries": 2}) as site,
    ):
        site.box.add_study(finding=FINDING)
        site.tell()
        assert [one.state for one in site.alerts()] == ["DEAD"]
        assert send_again(site.box.database, "another") == 0
        assert send_again(site.box.database, None) == 1
        site.tell()
        assert [one.state for one in site.alerts()] == ["SENT"]
        assert len({one["identifier"] for one in worklist.heard}) == 1
