"""Whether anybody has written since the last look."""

from __future__ import annotations

from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from ich_node.database.engine import Database


class ChangeWatch:
    """Sees that a database was written to, by any process, without reading it.

    SQLite has ``PRAGMA data_version`` for it, PostgreSQL says which transactions a reader would see. It keeps a
    connection of its own, since SQLite's number tells only of the writes of other connections. Use it in one thread.
    """

    def __init__(self, database: Database) -> None:
        self._connection = database.engine.connect()
        self._mark = text(database.kind.change_mark)
        self._seen: object = None

    def changed(self) -> bool:
        """Say whether something was written since this was last asked; the first time it was."""
        try:
            with self._connection.begin():
                version: object = self._connection.execute(self._mark).scalar_one()
        except SQLAlchemyError:
            self._seen = None
            return True  # whoever looks then learns what is wrong
        before, self._seen = self._seen, version
        return before != version

    def close(self) -> None:
        """Let go of the connection."""
        self._connection.close()
