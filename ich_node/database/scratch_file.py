"""SQLite files of bulk scoring: made anew where they are lost, so not written with the care that results get."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Self

from ich_node.errors import StartError


class ScratchFile:
    """Such a file, open; use it as a context manager.

    Args:
        tables: the statements that make what is not there yet.
        schema: the number of their version.
        anew: what happens where the file is deleted, for people.

    Raises:
        StartError: the file is of another version, or damaged.
    """

    def __init__(self, path: Path, tables: str, schema: int, anew: str) -> None:
        try:
            self._database = sqlite3.connect(path, isolation_level="DEFERRED")
            self._prepare(path, tables, schema, anew)
        except sqlite3.Error as error:
            raise StartError(f"{path} cannot be used ({error}): delete it, {anew}") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._database.commit()
        self._database.close()

    def _prepare(self, path: Path, tables: str, schema: int, anew: str) -> None:
        (version,) = self._database.execute("PRAGMA user_version").fetchone()
        if version not in (0, schema):
            raise StartError(f"{path} was written by another version: delete it, {anew}")
        self._database.execute("PRAGMA journal_mode = WAL")
        self._database.execute("PRAGMA synchronous = NORMAL")
        self._database.executescript(tables)
        self._database.execute(f"PRAGMA user_version = {schema}")
