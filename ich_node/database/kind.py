"""What the two kinds of database do each in its own way."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError

from ich_node.errors import IchNodeError


@dataclass(frozen=True, slots=True)
class Kind:
    """One open database. ``readers``, ``writers`` and ``claimers`` share the connections of ``engine``."""

    engine: Engine
    readers: Engine
    """Its transactions see one state from beginning to end."""
    writers: Engine
    """Its transactions come one after the other, on all hosts: each takes the write lock as it begins."""
    claimers: Engine | None
    """Its transactions take the rows they lock and wait for nobody; None: they are writers like all others."""
    file: Path | None
    """None where the database is on a server."""
    name_trouble: Callable[[DBAPIError, bool], IchNodeError | None]
    """Says what an error means for whoever wrote; and whether it came while a transaction was being committed."""
    faults: Callable[[Connection], list[str]]
    """Says why the database cannot be worked with."""
    change_mark: str
    """A statement whose answer differs once somebody has committed something."""
    server_time: str | None = None
    """A statement that asks for the server's time, in seconds since 1970; None where there is no server."""
