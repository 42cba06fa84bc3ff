"""SQLite: one file, one writer at a time, a write-ahead log that is flushed at every commit."""

from __future__ import annotations

import sqlite3
import time
from itertools import chain, repeat
from pathlib import Path
from typing import Any, Final

from sqlalchemy import URL, Connection, create_engine, event
from sqlalchemy.exc import DBAPIError

from ich_node.database.kind import Kind
from ich_node.errors import DatabaseBusy, IchNodeError, SpoolFull, SpoolReadOnly, StorageFailed

_LOCKED: Final = ("SQLITE_BUSY", "SQLITE_LOCKED")
_FULL: Final = ("SQLITE_FULL", "SQLITE_IOERR_WRITE", "SQLITE_IOERR_SHMSIZE")
"""A quota shows as a failed write: nothing of it was committed, and the next may succeed."""
_READ_ONLY: Final = ("SQLITE_READONLY", "SQLITE_CANTOPEN")
"""On a disk that became read-only, a new connection cannot even open the file."""
_FAILED: Final = ("SQLITE_IOERR", "SQLITE_CORRUPT", "SQLITE_NOTADB")
_MOST_CONNECTIONS: Final = 15
_PAUSES: Final = 200
_PAUSE_S: Final = 0.0003
_LONG_PAUSE_S: Final = 0.005


def open_sqlite(url: URL, busy_timeout_s: float, connections_kept: int) -> Kind:
    """Open a file with a write-ahead log and ``synchronous=FULL``: a commit survives a power cut."""
    engine = create_engine(
        url,
        connect_args={"timeout": busy_timeout_s, "check_same_thread": False},
        pool_size=connections_kept,
        max_overflow=_MOST_CONNECTIONS - connections_kept,
        hide_parameters=True,  # values must not reach a log by way of an error's text
        pool_use_lifo=True,  # each has pages at hand: those that one moment needed stay small
        pool_reset_on_return=None,  # each transaction ends by itself
    )
    event.listen(engine, "connect", _prepare_connection)
    event.listen(engine, "begin", _begin)
    writers = engine.execution_options(ich_writer_waits_s=busy_timeout_s)
    return Kind(
        engine=engine, readers=engine, writers=writers, claimers=None, file=Path(url.database or ""),
        name_trouble=_name_trouble, faults=_faults, change_mark="PRAGMA data_version",
    )  # fmt: skip


def _prepare_connection(connection: Any, _record: Any) -> None:
    # The driver's own transactions begin too late (deferred); with None, ours are the only ones.
    connection.isolation_level = None
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute("PRAGMA synchronous=FULL")
    cursor.execute("PRAGMA foreign_keys=ON")
    # By default 2 MiB, which each of a role's connections fills in a day; the system keeps the pages of the file too.
    cursor.execute("PRAGMA cache_size=-512")
    cursor.close()


def _begin(connection: Connection) -> None:
    waits_s = connection.get_execution_options().get("ich_writer_waits_s")
    if waits_s is None:
        connection.exec_driver_sql("BEGIN")
        return
    driver: Any = connection.connection.driver_connection
    driver.execute("PRAGMA busy_timeout=0")
    try:
        # A deferred transaction that reads and then writes fails at once when another has written meanwhile;
        # with IMMEDIATE it waits (https://www.sqlite.org/lang_transaction.html).
        if not _began_writing(driver, waits_s):
            connection.exec_driver_sql("BEGIN IMMEDIATE")  # says why not
    finally:
        driver.execute(f"PRAGMA busy_timeout={round(1000 * waits_s)}")


def _began_writing(driver: Any, waits_s: float) -> bool:
    """Take the write lock as soon as another process gives it back.

    SQLite's own waiting sleeps longer and longer, up to 100 ms, where the others write for three.
    """
    until = time.monotonic() + waits_s
    for pause_s in chain(repeat(_PAUSE_S, _PAUSES), repeat(_LONG_PAUSE_S)):
        try:
            driver.execute("BEGIN IMMEDIATE")
            return True
        except sqlite3.DatabaseError as error:
            if not _is_locked(error) or time.monotonic() > until:
                break
        time.sleep(pause_s)
    return False


def _faults(connection: Connection) -> list[str]:
    """Let SQLite look over the whole file."""
    answer = [str(row[0]) for row in connection.exec_driver_sql("PRAGMA quick_check(5)")]
    return [] if answer == ["ok"] else answer


def _is_locked(error: Any) -> bool:
    return getattr(error, "sqlite_errorname", "").startswith(_LOCKED)


def _name_trouble(error: DBAPIError, _committing: bool) -> IchNodeError | None:
    """Say what an error of SQLite means for whoever wrote (https://www.sqlite.org/rescode.html)."""
    name = getattr(error.orig, "sqlite_errorname", "")
    if _is_locked(error.orig):
        return DatabaseBusy("the database stayed locked")
    if name.startswith(_FULL):
        return SpoolFull("no space left for the database")
    if name.startswith(_READ_ONLY):
        return SpoolReadOnly(f"the database cannot be written: {error.orig}; is the disk mounted read-only?")
    if name.startswith(_FAILED):
        return StorageFailed(f"the database failed: {error.orig}")
    return None
