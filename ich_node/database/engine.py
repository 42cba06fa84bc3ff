"""Connections: every writer takes the write lock at once, so that it waits for its turn instead of failing late."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar, cast

from sqlalchemy import Connection, Engine
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolExhausted

from ich_node.database.kind import Kind
from ich_node.database.sqlite import open_sqlite
from ich_node.errors import DatabaseAway, DatabaseBusy, StorageFailed
from ich_node.failpoint import reach

Result = TypeVar("Result")


@dataclass(slots=True, eq=False)
class _Piece:
    """A thread's part of a transaction that several threads share."""

    work: Callable[[Connection], Any]
    result: Any = None
    committed: bool = False
    trouble: DatabaseBusy | DatabaseAway | None = None
    settled: threading.Event = field(default_factory=threading.Event)


class Database:
    """A database that hands out short transactions.

    Attributes:
        url: as it was opened.
        engine: the SQLAlchemy engine.
        file: None where the database is on a server.
    """

    def __init__(self, url: str, kind: Kind, busy_timeout_s: float) -> None:
        self.url = url
        self.engine = kind.engine
        self.file = kind.file
        self.kind = kind
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
            DatabaseAway: the server does not answer.
            StorageFailed: the file is damaged, or is not the one that was opened.
        """
        self.before_transaction()
        with self._troubles_are_named(), self.kind.readers.begin() as connection:
            self._see_that_it_is_there()
            yield connection

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """Give a connection inside a write transaction, committed at the end.

        Raises:
            DatabaseBusy: the database stayed locked for ``busy_timeout_s``.
            DatabaseAway: the server does not answer; nothing was written.
            SpoolFull: there is no room for what was written.
            SpoolReadOnly: the disk is mounted read-only.
            StorageFailed: the disk failed, the file is damaged or gone, or the server was lost while it committed. It
                is raised from then on: a commit that comes after a failed fsync proves nothing.
        """
        self.before_transaction()
        if not self._turn.acquire(timeout=self._busy_timeout_s):
            raise DatabaseBusy("other threads kept the database busy")
        try:
            with self._transaction(self.kind.writers) as connection:
                yield connection
        finally:
            self._turn.release()

    @contextmanager
    def claiming(self) -> Iterator[Connection]:
        """Give a connection to take rows by ``SELECT ... FOR UPDATE SKIP LOCKED``, beside other claims and writers.

        It must wait for nothing: lock the rows it changes, and change no others, or it could wait for a writer that
        waits for it. Where the database has no locks of rows, it is as ``writing``; so are its errors.
        """
        if self.kind.claimers is None:
            with self.writing() as connection:
                yield connection
            return
        self.before_transaction()
        with self._transaction(self.kind.claimers) as connection:
            yield connection

    @contextmanager
    def _transaction(self, engine: Engine) -> Iterator[Connection]:
        at_commit = threading.Event()
        with self._troubles_are_named(at_commit), engine.connect() as connection:
            self._see_that_it_is_there()
            with connection.begin():
                yield connection
                reach("commit-before")
                at_commit.set()
            reach("commit-after")

    def write_together(self, work: Callable[[Connection], Result]) -> Result:
        """Write in one transaction with the threads that wait meanwhile, and return when it is committed.

        One flush of the disk then serves them all. Where one piece of work fails, all are undone and each thread
        tries its own alone; so it must do nothing but use the connection.

        Raises:
            DatabaseBusy, DatabaseAway: as of ``writing``.
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
        if piece.trouble is not None:
            raise type(piece.trouble)(str(piece.trouble)) from piece.trouble
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
        except (DatabaseBusy, DatabaseAway) as trouble:
            pieces = pieces or self._take_pieces()
            for piece in pieces:
                piece.trouble = trouble
        except SQLAlchemyError:
            pass  # undone: each thread tries alone, and the one whose work fails gets its own error
        finally:
            for piece in pieces or self._take_pieces():
                piece.settled.set()

    def _take_pieces(self) -> list[_Piece]:
        with self._pieces_lock:
            pieces, self._pieces = self._pieces, []
        return pieces

    def ahead_of_server_s(self) -> float:
        """Say how far the clock of this host is ahead of the server's; 0 where there is no server.

        Raises:
            DatabaseAway: the server does not answer.
        """
        if self.kind.server_time is None:
            return 0.0
        with self._troubles_are_named(), self.kind.readers.begin() as connection:
            connection.exec_driver_sql("SELECT 1")  # the first statement takes longer: it begins the transaction
            before = time.time()
            there = float(connection.exec_driver_sql(self.kind.server_time).scalar_one())
            return (before + time.time()) / 2 - there

    def close(self) -> None:
        self.engine.dispose()

    def let_idle_connections_go(self) -> None:
        """Close the connections that nothing uses now, with what they prepared and read; others come where needed.

        For work that comes seldom and needs much: each time it would leave that in another connection.
        """
        self.engine.dispose()

    @property
    def failed(self) -> bool:
        """Whether the disk or the file failed, so that this process has to end."""
        return self._failure is not None

    def _see_that_it_is_there(self) -> None:
        """Refuse to write into a file that nobody will open again: it was deleted, or another lies in its place."""
        if self._failure is not None:
            raise StorageFailed(self._failure)
        if self.file is None:
            return
        try:
            inode = os.stat(self.file).st_ino  # noqa: PTH116 - runs for every transaction
        except OSError:
            inode = None
        self._inode = self._inode or inode
        if inode is None or inode != self._inode:
            raise StorageFailed("the database was deleted or replaced while it was open; see `ich-node rebuild`")

    @contextmanager
    def _troubles_are_named(self, at_commit: threading.Event | None = None) -> Iterator[None]:
        try:
            yield
        except StorageFailed as error:
            self._failure = str(error)
            raise
        except PoolExhausted as error:
            raise DatabaseBusy("all connections to the database are in use") from error
        except DBAPIError as error:
            trouble = self.kind.name_trouble(error, at_commit is not None and at_commit.is_set())
            if trouble is None:
                raise
            if isinstance(trouble, StorageFailed):
                self._failure = str(trouble)
            raise trouble from error


def database_file(url: str) -> Path | None:
    """Give the file of a database; None where it is on a server."""
    parts = make_url(url)
    return Path(parts.database or "") if parts.get_backend_name() == "sqlite" else None


def open_database(url: str, busy_timeout_s: float = 30.0, connections_kept: int = 5) -> Database:
    """Open a database: SQLite, or PostgreSQL with the parameter ``password_file`` where it needs a password.

    Args:
        connections_kept: to SQLite, also while nothing uses them; more are opened where needed, and closed again.
            Each takes up to 2 MiB for its pages and prepared statements as it is used.

    Raises:
        StartError: the driver of PostgreSQL is not installed.
    """
    parts = make_url(url)
    if parts.get_backend_name() == "sqlite":
        return Database(url, open_sqlite(parts, busy_timeout_s, connections_kept), busy_timeout_s)
    from ich_node.database.postgresql import open_postgresql  # a node on SQLite does without the driver

    return Database(url, open_postgresql(parts, busy_timeout_s), busy_timeout_s)
