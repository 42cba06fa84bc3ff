"""Bring the database to this version's schema, once, under a lock; refuse one that is newer or damaged."""

from __future__ import annotations

import time
import uuid
from pathlib import Path
from typing import Final

from filelock import FileLock, Timeout
from sqlalchemy import Connection, insert, inspect, select, text
from sqlalchemy.exc import DatabaseError

from ich_node.database.engine import Database
from ich_node.database.tables import InstallationRow
from ich_node.errors import StartError

_LONGEST_MIGRATION_S: Final = 600.0
_VERSIONS: Final = Path(__file__).parent / "migrations" / "versions"


def prepare_database(database: Database, state_directory: Path) -> str:
    """Check, migrate and identify the database. The first process does it, the others wait.

    Returns:
        The installation UID, made at the first start.

    Raises:
        StartError: the database is damaged, or was written by a newer version.
    """
    try:
        with FileLock(state_directory / "migrate.lock", timeout=_LONGEST_MIGRATION_S):
            check_integrity(database)
            with database.writing() as connection:
                _migrate(connection)
                return _identify(connection)
    except Timeout:
        raise StartError("another process has been migrating the database for 10 minutes") from None
    except DatabaseError as error:
        raise StartError(f"the database cannot be opened: {error.orig}; see docs/operation.md") from error


def check_integrity(database: Database) -> None:
    """Let SQLite look over the whole file.

    Raises:
        StartError: it is damaged.
    """
    try:
        with database.reading() as connection:
            answer = [row[0] for row in connection.exec_driver_sql("PRAGMA quick_check(5)")]
    except DatabaseError as error:
        raise StartError(f"the database is damaged: {error.orig}; see docs/operation.md") from error
    if answer != ["ok"]:
        raise StartError(f"the database is damaged: {'; '.join(map(str, answer))}; see docs/operation.md")


def _migrate(connection: Connection) -> None:
    known = known_schemas()
    current = _current_schema(connection)
    if current == known[-1]:
        return
    if current is not None and current not in known:
        raise StartError(
            f"the database has schema {current}, which is newer than this program ({known[-1]}): upgrade it"
        )
    from alembic import command  # late: only who migrates needs it, and it takes half a second and 10 MiB
    from alembic.config import Config as AlembicConfig

    settings = AlembicConfig()
    settings.set_main_option("script_location", "ich_node.database:migrations")
    settings.attributes["connection"] = connection
    command.upgrade(settings, "head")


def known_schemas() -> list[str]:
    """List the revisions of this program, the oldest first: each migration's file begins with its number."""
    return sorted(path.name.split("_")[0] for path in _VERSIONS.glob("[0-9]*.py"))


def _current_schema(connection: Connection) -> str | None:
    if not inspect(connection).has_table("alembic_version"):
        return None
    revision: str | None = connection.execute(text("select version_num from alembic_version")).scalar()
    return revision


def _identify(connection: Connection) -> str:
    known = connection.execute(select(InstallationRow.installation_uid)).scalar()
    if known is not None:
        return known
    installation_uid = f"2.25.{uuid.uuid4().int}"
    connection.execute(insert(InstallationRow).values(id=1, installation_uid=installation_uid, created_at=time.time()))
    return installation_uid
