"""Connections: every writer takes the write lock at once, so that it waits for its turn instead of failing late."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.exc import OperationalError

from ich_node.errors import DatabaseBusy, SpoolFull

_FULL = "database or disk is full"
_LOCKED = ("database is locked", "database table is locked", "database schema is locked")


class Database:
    """A database that hands out short transactions.

    Attributes:
        engine: the SQLAlchemy engine, for migrations.
    """

    def __init__(self, engine: Engine, busy_timeout_s: float) -> None:
        self.engine = engine
        self._busy_timeout_s = busy_timeout_s
        self._turn = threading.Lock()
        """Threads of one process queue here: SQLite's own waiting polls, and polls unfairly."""

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """Give a connection that sees one consistent state. Writing on it is a programmer's mistake."""
        with _troubles_are_named(), self.engine.begin() as connection:
            yield connection

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """Give a connection inside a write transaction, committed at the end.

        Raises:
            DatabaseBusy: the database stayed locked for ``busy_timeout_s``.
            SpoolFull: there is no room for what was written.
        """
        if not self._turn.acquire(timeout=self._busy_timeout_s):
            raise DatabaseBusy("other threads kept the database busy")
        try:
            with _troubles_are_named(), self.engine.connect() as connection:
                connection.execution_options(ich_writer=True)
                with connection.begin():
                    yield connection
        finally:
            self._turn.release()

    def close(self) -> None:
        self.engine.dispose()


def open_database(url: str, busy_timeout_s: float = 30.0) -> Database:
    """Open a database. SQLite runs with a write-ahead log and ``synchronous=FULL``: a commit survives a power cut."""
    engine = create_engine(
        url,
        connect_args={"timeout": busy_timeout_s, "check_same_thread": False},
        hide_parameters=True,  # values must not reach a log by way of an error's text
    )
    event.listen(engine, "connect", _prepare_connection)
    event.listen(engine, "begin", _begin)
    return Database(engine, busy_timeout_s)


def _prepare_connection(connection: Any, _record: Any) -> None:
    # The driver's own transactions begin too late (deferred); with None, ours are the only ones.
    connection.isolation_level = None
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute("PRAGMA synchronous=FULL")
    cursor.execute("PRAGMA foreign_keys=ON")
    cursor.close()


def _begin(connection: Connection) -> None:
    writer = connection.get_execution_options().get("ich_writer", False)
    # A deferred transaction that reads and then writes fails at once when another has written meanwhile;
    # with IMMEDIATE it waits (https://www.sqlite.org/lang_transaction.html).
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writer else "BEGIN")


@contextmanager
def _troubles_are_named() -> Iterator[None]:
    try:
        yield
    except OperationalError as error:
        if any(text in str(error.orig) for text in _LOCKED):
            raise DatabaseBusy("the database stayed locked") from error
        if _FULL in str(error.orig):
            raise SpoolFull("no space left for the database") from error
        raise
