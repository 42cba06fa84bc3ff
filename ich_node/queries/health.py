"""Whether the database can be used."""

from __future__ import annotations

from collections.abc import Callable

from sqlalchemy import select, text

from ich_node.database import Database, InstallationRow
from ich_node.errors import IchNodeError


def is_readable(database: Database) -> bool:
    """Say whether the database can be read."""
    return _succeeds(lambda: _read(database))


def is_writable(database: Database) -> bool:
    """Say whether a writer gets its turn in time; nothing is written."""
    return _succeeds(lambda: _take_turn(database))


def _read(database: Database) -> None:
    with database.reading() as connection:
        connection.execute(select(InstallationRow.id).limit(1)).first()


def _take_turn(database: Database) -> None:
    with database.writing() as connection:
        connection.execute(text("SELECT 1"))


def _succeeds(work: Callable[[], None]) -> bool:
    try:
        work()
    except IchNodeError:
        return False
    return True
