"""Transactions that threads share."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, event, text
from sqlalchemy.exc import IntegrityError

from ich_node.database import Database, open_database
from ich_node.errors import DatabaseBusy


@pytest.fixture
def database(tmp_path: Path):
    database = open_database(f"sqlite:///{tmp_path / 'database.sqlite'}", busy_timeout_s=0.2)
    with database.writing() as connection:
        connection.execute(text("create table word (name text primary key)"))
    yield database
    database.close()


def words(database: Database) -> list[str]:
    with database.reading() as connection:
        return list(connection.execute(text("select name from word order by name")).scalars())


def adding(name: str) -> Callable[[Connection], str]:
    def work(connection: Connection) -> str:
        connection.execute(text("insert into word values (:name)"), {"name": name})
        return name

    return work


def write_while_held(database: Database, works: list[Callable[[Connection], Any]]) -> list[Any]:
    """Have every work wait for the same lock, so that they end up in one transaction; return results or errors."""
    all_wait = threading.Barrier(len(works) + 1)

    def attempt(work: Callable[[Connection], Any]) -> Any:
        all_wait.wait()
        try:
            return database.write_together(work)
        except (IntegrityError, DatabaseBusy) as error:
            return error

    with ThreadPoolExecutor(len(works)) as pool:
        with database.writing():
            futures = [pool.submit(attempt, work) for work in works]
            all_wait.wait()
            while len(database._pieces) < len(works):
                time.sleep(0.001)
        return [future.result() for future in futures]


def test_threads_that_wait_for_each_other_share_one_transaction(database: Database):
    commits = []
    event.listen(database.engine, "commit", commits.append)
    names = [f"word {number}" for number in range(8)]

    assert write_while_held(database, [adding(name) for name in names]) == names
    assert len(commits) == 2  # one of the lock's holder, one of the eight
    assert words(database) == names


def test_a_failure_in_a_shared_transaction_stays_with_its_own_thread(database: Database):
    works = [adding("first"), adding("second"), adding("first"), adding("third")]

    results = write_while_held(database, works)

    assert words(database) == ["first", "second", "third"]
    assert sum(isinstance(result, IntegrityError) for result in results) == 1
    assert isinstance(results[0], IntegrityError) or isinstance(results[2], IntegrityError)


def test_every_thread_hears_that_the_database_stayed_locked(database: Database, tmp_path: Path):
    another = open_database(f"sqlite:///{tmp_path / 'database.sqlite'}")
    with another.writing(), ThreadPoolExecutor(4) as pool:
        futures = [pool.submit(database.write_together, adding(str(number))) for number in range(4)]
        assert all(isinstance(future.exception(), DatabaseBusy) for future in futures)
    another.close()
    assert words(database) == []
    assert database.write_together(adding("later")) == "later"
