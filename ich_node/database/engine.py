"""Connections: every writer takes the write lock at once, so that it waits for its turn instead of failing late."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeVar, cast

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DatabaseError, SQLAlchemyError

from ich_node.errors import DatabaseBusy, IchNodeError, SpoolFull, SpoolReadOnly, StorageFailed
from ich_node.failpoint import reach

_LOCKED: Final = ("SQLITE_BUSY", "SQLITE_LOCKED")
_FULL: Final = ("SQLITE_FULL", "SQLITE_IOERR_WRITE", "SQLITE_IOERR_SHMSIZE")
"""A quota shows as a failed write: nothing of it was committed, and the next may succeed."""
_READ_ONLY: Final = ("SQLITE_READONLY", "SQLITE_CANTOPEN")
"""On a disk that became read-only, a new connection cannot even open the file."""
_FAILED: Final = ("SQLITE_IOERR", "SQLITE_CORRUPT", "SQLITE_NOTADB")

Result = TypeVar("Result")


@dataclass(slots=True, eq=False)
class _Piece:
    """A thread's part of a transaction that several threads share."""

    work: Callable[[Connection], Any]
    result: Any = None
    committed: bool = False
    busy: DatabaseBusy | None = None
    settled: threading.Event = field(default_factory=threading.Event)


class Database:
    """A database that hands out short transactions.

    Attributes:
        engine: the SQLAlchemy engine, for migrations.
    """

    def __init__(self, engine: Engine, busy_timeout_s: float) -> None:
        self.engine = engine
        self.file = database_file(str(engine.url))
        self._inode: int | None = None
        self._failure: str | None = None
        self.before_transaction: Callable[[], None] = lambda: None
        """Called before every transaction; may write."""
        self._busy_timeout_s = busy_timeout_s
        self._turn = threading.Lock()
        """Threads of one process queue here: SQLite's own waiting polls, and polls unfairly."""
        self._pieces: list[_Piece] = []
        self._pieces_lock = threading.Lock()

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """Give a connection that sees one consistent state. Writing on it is a programmer's mistake.

        Raises:
            StorageFailed: the file is damaged, or is not the one that was opened.
        """
        self.before_transaction()
        with self._troubles_are_named(), self.engine.begin() as connection:
            self._see_that_it_is_there()
            yield connection

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """Give a connection inside a write transaction, committed at the end.

        Raises:
            DatabaseBusy: the database stayed locked for ``busy_timeout_s``.
            SpoolFull: there is no room for what was written.
            SpoolReadOnly: the disk is mounted read-only.
            StorageFailed: the disk failed, or the file is damaged or gone. It is raised from then on: a commit that
                comes after a failed fsync proves nothing.
        """
        self.before_transaction()
        if not self._turn.acquire(timeout=self._busy_timeout_s):
            raise DatabaseBusy("other threads kept the database busy")
        try:
            with self._troubles_are_named(), self.engine.connect() as connection:
                self._see_that_it_is_there()
                connection.execution_options(ich_writer=True)
                with connection.begin():
                    yield connection
                    reach("commit-before")
                reach("commit-after")
        finally:
            self._turn.release()

    def write_together(self, work: Callable[[Connection], Result]) -> Result:
        """Write in one transaction with the threads that wait meanwhile, and return when it is committed.

        One flush of the disk then serves them all. Where one piece of work fails, all are undone and each thread
        tries its own alone; so it must do nothing but use the connection.

        Raises:
            DatabaseBusy: the database stayed locked for ``busy_timeout_s``.
        """
        piece = _Piece(work)
        with self._pieces_lock:
            self._pieces.append(piece)
            leads = len(self._pieces) == 1
        if leads:
            self._write_pieces()
        piece.settled.wait()
        if piece.committed:
            return cast(Result, piece.result)
        if piece.busy is not None:
            raise DatabaseBusy("the database stayed locked") from piece.busy
        with self.writing() as connection:
            return work(connection)

    def _write_pieces(self) -> None:
        """Lead: do the work of every thread that has come by the time we hold the write lock."""
        pieces: list[_Piece] = []
        try:
            with self.writing() as connection:
                pieces = self._take_pieces()
                for piece in pieces:
                    piece.result = piece.work(connection)
            for piece in pieces:
                piece.committed = True
        except DatabaseBusy as busy:
            pieces = pieces or self._take_pieces()
            for piece in pieces:
                piece.busy = busy
        except SQLAlchemyError:
            pass  # undone: each thread tries alone, and the one whose work fails gets its own error
        finally:
            for piece in pieces or self._take_pieces():
                piece.settled.set()

    def _take_pieces(self) -> list[_Piece]:
        with self._pieces_lock:
            pieces, self._pieces = self._pieces, []
        return pieces

    def close(self) -> None:
        self.engine.dispose()

    @property
    def failed(self) -> bool:
        """Whether the disk or the file failed, so that this process has to end."""
        return self._failure is not None

    def _see_that_it_is_there(self) -> None:
        """Refuse to write into a file that nobody will open again: it was deleted, or another lies in its place."""
        if self._failure is not None:
            raise StorageFailed(self._failure)
        try:
            inode = os.stat(self.file).st_ino  # noqa: PTH116 - runs for every transaction
        except OSError:
            inode = None
        self._inode = self._inode or inode
        if inode is None or inode != self._inode:
            raise StorageFailed("the database was deleted or replaced while it was open; see `ich-node rebuild`")

    @contextmanager
    def _troubles_are_named(self) -> Iterator[None]:
        try:
            yield
        except StorageFailed as error:
            self._failure = str(error)
            raise
        except DatabaseError as error:
            trouble = _name_trouble(error)
            if trouble is None:
                raise
            if isinstance(trouble, StorageFailed):
                self._failure = str(trouble)
            raise trouble from error


def database_file(url: str) -> Path:
    """Give the file of a database."""
    return Path(make_url(url).database or "")


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


def _name_trouble(error: DatabaseError) -> IchNodeError | None:
    """Say what an error of SQLite means for whoever wrote (https://www.sqlite.org/rescode.html)."""
    name = getattr(error.orig, "sqlite_errorname", "")
    if name.startswith(_LOCKED):
        return DatabaseBusy("the database stayed locked")
    if name.startswith(_FULL):
        return SpoolFull("no space left for the database")
    if name.startswith(_READ_ONLY):
        return SpoolReadOnly(f"the database cannot be written: {error.orig}; is the disk mounted read-only?")
    if name.startswith(_FAILED):
        return StorageFailed(f"the database failed: {error.orig}")
    return None
