"""A node that tests itself, step by step: its parts in this process, the worker in a thread that can be stopped."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import func, select

from ich_node.audit import open_trail
from ich_node.config import Config
from ich_node.database import Base, Database
from ich_node.job_queue.self_tests import ask_self_test
from ich_node.records.self_tests import SelfTestVerdict
from ich_node.self_test import SelfTester
from tests.running import PartsOfANode

NOT_LEFT_BY_A_STUDY = {"clock", "self_test", "installation", "alembic_version", "worker", "turn", "condition"}


def run_test(node: PartsOfANode, **options: Any) -> SelfTestVerdict | None:
    """Ask for a test and run it, the worker beside it."""
    ask_self_test(node.database, "tests", **options)
    with working(node):
        return a_tester(node).step(threading.Event())


def a_tester(node: PartsOfANode, config: Config | None = None) -> SelfTester:
    return SelfTester(config or node.config, node.database, open_trail(node.config, "deliver"))


@contextmanager
def working(node: PartsOfANode) -> Iterator[None]:
    """Let the worker work until the block ends."""
    stop = threading.Event()
    thread = threading.Thread(target=node.worker.run, args=(stop,))
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def rows_of_every_table(database: Database) -> dict[str, int]:
    """How many rows each table has, but for the record of the tests themselves."""
    with database.reading() as connection:
        return {
            table.name: connection.execute(select(func.count()).select_from(table)).scalar_one()
            for table in Base.metadata.sorted_tables
            if table.name not in NOT_LEFT_BY_A_STUDY
        }


def files_of(node: PartsOfANode) -> set[Path]:
    """Every image and every result on disk, and whatever lies beside them."""
    state = node.config.state_directory
    return {path for name in ("spool", "results") for path in (state / name).rglob("*") if path.is_file()}
