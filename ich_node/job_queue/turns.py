"""Whose turn it is: some things one process of the node does at a time, on whatever host; another when that is gone."""

from __future__ import annotations

import threading
import time
from typing import Final

from sqlalchemy import delete, insert, select, update

from ich_node.database import Database, TurnRow
from ich_node.job_queue.leases import new_owner

LEASE_S: Final = 60.0
_RENEWED_FROM: Final = 2 / 3
"""Of the lease that is left: each renewal is a write that all pages hear of."""
_ASKED_EVERY_S: Final = 5.0


class Turn:
    """Asked by any thread, as often as one likes, and kept as long as somebody asks.

    Args:
        name: of what is done.
    """

    def __init__(self, database: Database, name: str) -> None:
        self._database = database
        self._name = name
        self._owner = new_owner()
        self._lock = threading.Lock()
        self._asked_at = -_ASKED_EVERY_S
        self._mine = False

    def is_mine(self) -> bool:
        """Take the turn or keep it; False where it is another's.

        Raises:
            StorageUnavailable: the database does not answer; whether it is still ours is not known.
        """
        with self._lock:
            if time.monotonic() - self._asked_at >= _ASKED_EVERY_S:
                self._mine = False
                self._mine = take_turn(self._database, self._name, self._owner, lease_s=LEASE_S)
                self._asked_at = time.monotonic()
            return self._mine

    def give_back(self) -> None:
        """Let another take it at once.

        Raises:
            StorageUnavailable: it runs out by itself.
        """
        with self._database.writing() as connection:
            mine = (TurnRow.name == self._name, TurnRow.owner == self._owner)
            connection.execute(delete(TurnRow).where(*mine))


def take_turn(database: Database, name: str, owner: str, *, lease_s: float) -> bool:
    """Take a turn that nobody has, or renew it. False: another has it."""
    now = time.time()
    wanted = select(TurnRow).where(TurnRow.name == name)
    with database.reading() as connection:
        row = connection.execute(wanted).first()
    if row is not None and row.expires_at >= now:
        if row.owner != owner:
            return False
        if row.expires_at - now > lease_s * _RENEWED_FROM:
            return True
    with database.writing() as connection:
        row = connection.execute(wanted).first()
        if row is not None and row.owner != owner and row.expires_at >= now:
            return False
        values = {"owner": owner, "expires_at": now + lease_s}
        if row is None:
            connection.execute(insert(TurnRow).values(values | {"name": name}))
        else:
            connection.execute(update(TurnRow).where(TurnRow.name == name).values(values))
    return True
