"""Whether anybody has written since the last look."""

from __future__ import annotations

import time

from sqlalchemy import Connection, text
from sqlalchemy.exc import SQLAlchemyError

from ich_node.database.engine import Database


class ChangeWatch:
    """Sees that a database was written to, by any process, without reading it.

    SQLite has ``PRAGMA data_version`` for it, PostgreSQL says which transactions a reader would see. It keeps a
    connection of its own, since SQLite's number tells only of the writes of other connections. Use it in one thread.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._connection: Connection | None = None
        self._mark = text(database.kind.change_mark)
        self._seen: object = None

    def changed(self) -> bool:
        """Say whether something was written since this was last asked; the first time it was."""
        try:
            self._connection = self._connection or self._database.engine.connect()
            with self._connection.begin():
                version: object = self._connection.execute(self._mark).scalar_one()
        except SQLAlchemyError:
            self._seen = None
            return True  # whoever looks then learns what is wrong
        before, self._seen = self._seen, version
        return before != version

    def close(self) -> None:
        """Let go of the connection."""
        if self._connection is not None:
            self._connection.close()


class Looks:
    """Tells a loop that comes by often whether a look at the database may show something new.

    It may where somebody has written, and now and then because of what only time makes due. Use it in one thread.

    Args:
        at_least_every_s: so often it is worth a look in any case.
    """

    def __init__(self, database: Database, at_least_every_s: float) -> None:
        self._watch = ChangeWatch(database)
        self._every_s = at_least_every_s
        self._next = 0.0

    def worth(self) -> bool:
        """Say whether it is worth a look now; where the database cannot be asked it is, and who looks learns why."""
        if not self._watch.changed() and time.monotonic() < self._next:
            return False
        self._next = time.monotonic() + self._every_s
        return True

    def close(self) -> None:
        """Let go of the connection."""
        self._watch.close()
