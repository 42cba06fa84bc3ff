"""The stream of changes: every browser is told of each, and a table is never older than the last look."""

from __future__ import annotations

import asyncio
import itertools
import json
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection
from sqlalchemy.exc import OperationalError

from ich_node.accounts import Role
from ich_node.database import ChangeWatch, Database
from ich_node.errors import DatabaseBusy
from ich_node.queries import WorklistQuery
from ich_node.web.gate import Visitor
from ich_node.web.live import LiveFeed, live_state
from ich_node.web.patients import Patient
from ich_node.web.tables import MadeTable, WorklistTables
from tests.unit.queueing import copied_queue, receive, received


@pytest.fixture
def database(tmp_path: Path, migrated_database: Path) -> Iterator[Database]:
    database = copied_queue(migrated_database, tmp_path)
    yield database
    database.close()


class Watch(ChangeWatch):
    """Sees a change whenever it is asked."""

    def __init__(self) -> None:
        pass

    def changed(self) -> bool:
        return True

    def close(self) -> None:
        pass


async def next_change(stream: AsyncIterator[str]) -> dict[str, Any]:
    async for text in stream:
        if "event: change" in text:
            return dict(json.loads(text.partition("data: ")[2]))
    raise AssertionError("the stream ended")


async def never_gone() -> bool:
    return False


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ich_node.web.live._LOOK_S", 0.01)


def listening(feed: LiveFeed, what: Any) -> Any:
    """Run the feed while something listens to it."""
    stop = threading.Event()
    thread = threading.Thread(target=feed.run, args=(stop,))
    thread.start()
    try:
        return asyncio.run(what())
    finally:
        stop.set()
        thread.join()


def test_a_feed_that_begins_while_the_database_is_away_tells_of_changes_once_it_is_back(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    feed = LiveFeed(lambda: live_state(database), lambda: ChangeWatch(database))
    real, refused = database.engine.connect, list[int]()

    def connect() -> Connection:
        if not refused:
            refused.append(1)
            raise OperationalError("", None, OSError("the server is gone"))
        return real()

    monkeypatch.setattr(database.engine, "connect", connect)

    async def look() -> dict[str, Any]:
        return await asyncio.wait_for(next_change(feed.events(never_gone)), 30)

    assert listening(feed, look)["studies"] == {}
    assert refused


def test_every_browser_is_told_how_things_stand_and_of_each_change(database: Database) -> None:
    feed = LiveFeed(lambda: live_state(database), lambda: ChangeWatch(database))

    async def look() -> list[dict[str, Any]]:
        one, two = feed.events(never_gone), feed.events(never_gone)
        first = [await next_change(one), await next_change(two)]
        receive(database, received(1))
        later = [await next_change(one), await next_change(two)]
        for stream in (one, two):
            await stream.aclose()
        return first + later

    told = listening(feed, look)
    assert told[0] == told[1]
    assert told[0]["studies"] == {}
    assert set(told[2]["studies"]) == set(told[3]["studies"]) == {"1.2.1"}
    assert told[2]["waiting"]["in_progress"] == 1
    assert "PHANTOM" not in json.dumps(told)


def test_the_mark_of_a_study_changes_with_it_and_only_then(database: Database) -> None:
    receive(database, received(1))
    before = live_state(database)
    assert live_state(database) == before
    receive(database, received(2))
    assert live_state(database)["studies"].keys() == before["studies"].keys()
    assert live_state(database)["studies"] != before["studies"]


def test_while_nobody_listens_nobody_knows_whether_something_changed(database: Database) -> None:
    feed = LiveFeed(lambda: live_state(database), lambda: ChangeWatch(database))
    assert feed.version is None
    versions: list[int | None] = []

    async def look() -> None:
        stream = feed.events(never_gone)
        await next_change(stream)
        versions.append(feed.version)
        await stream.aclose()

    listening(feed, look)
    assert versions[0] is not None
    assert feed.version is None, "a table of then may be old when somebody listens again"


def test_a_locked_database_is_looked_at_again(capsys: pytest.CaptureFixture[str]) -> None:
    known = {"studies": {}, "waiting": {"failed": 1}}
    looks: Iterator[Any] = itertools.chain([DatabaseBusy(1.0)], itertools.repeat(known))

    def look() -> dict[str, Any]:
        found = next(looks)
        if isinstance(found, Exception):
            raise found
        return found

    feed = LiveFeed(look, Watch)

    async def listen() -> dict[str, Any]:
        stream = feed.events(never_gone)
        told = await next_change(stream)
        await stream.aclose()
        return told

    assert listening(feed, listen)["waiting"] == {"failed": 1}


# ----------------------------------------------------------------------------------------- tables made once


class Tables(WorklistTables):
    """Tables that are numbered, without a site."""

    def __init__(self, version: Any) -> None:
        self.made = 0
        self.audited: list[str] = []
        site: Any = type("Site", (), {"live": version, "audit": self})()
        super().__init__(site)

    def _make(self, asked: WorklistQuery, visitor: Visitor) -> MadeTable:
        self.made += 1
        patients = ((Patient(name="Eve"), "1.2"),) if visitor.sees_patients else ()
        return MadeTable(f"{self.made} {asked.search}", patients)

    def patients_listed(self, name: str, *_: object) -> None:
        self.audited.append(name)


class Version:
    version: int | None = 1


READER, OTHER, VIEWER = (Visitor(name, role, None) for name, role in
                         (("ada", Role.READER), ("bob", Role.ADMINISTRATOR), ("eva", Role.VIEWER)))  # fmt: skip


def test_a_table_that_many_ask_for_is_made_once_and_recorded_for_each() -> None:
    tables = Tables(Version())
    asked = WorklistQuery()
    assert [tables.html(asked, one, "h") for one in (READER, OTHER, READER)] == ["1 "] * 3
    assert tables.audited == ["ada", "bob", "ada"]


def test_who_may_not_see_patients_never_gets_the_table_of_one_who_may() -> None:
    tables = Tables(Version())
    assert tables.html(WorklistQuery(), READER, "h") != tables.html(WorklistQuery(), VIEWER, "h")
    assert "eva" not in tables.audited


def test_a_table_is_made_anew_after_each_change_and_where_changes_are_not_seen() -> None:
    version = Version()
    tables = Tables(version)
    asked = WorklistQuery()
    assert tables.html(asked, READER, "h") == "1 "
    version.version = 2
    assert tables.html(asked, READER, "h") == "2 "
    version.version = None
    assert [tables.html(asked, READER, "h") for _ in range(2)] == ["3 ", "4 "]
    assert tables.html(WorklistQuery(search="x"), READER, "h") == "5 x"
