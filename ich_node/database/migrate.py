"""Bring the database to this version's schema, once, under a lock; refuse one that is newer or damaged."""

from __future__ import annotations

import time
import uuid
from pathlib import Path
from typing import Final

from filelock import FileLock, Timeout
from sqlalchemy import Connection, insert, inspect, select
from sqlalchemy.exc import DatabaseError

from ich_node.database.engine import Database
from ich_node.database.tables import SCHEMA, InstallationRow
from ich_node.durable import replace_durably
from ich_node.errors import StartError, StorageFailed, StorageUnavailable

_INSTALLATION: Final = "installation"
_MEND: Final = "stop the node and run `ich-node rebuild`, or restore a backup: docs/operation.md"
_LONGEST_MIGRATION_S = 600.0


def prepare_database(database: Database, state_directory: Path, *, rebuilding: bool = False) -> str:
    """Check, migrate and identify the database; make the state folder. The first process does it, the others wait.

    Args:
        rebuilding: the database is new, though images and results are there.

    Returns:
        The installation UID, made at the first start.

    Raises:
        StartError: the database is damaged or gone, or was written by a newer version; or the state folder cannot be
            written.
    """
    try:
        state_directory.mkdir(parents=True, exist_ok=True)
        with FileLock(state_directory / "migrate.lock", timeout=_LONGEST_MIGRATION_S):
            check_integrity(database)
            with database.writing() as connection:
                _migrate(connection)
                return _identify(connection, state_directory, rebuilding=rebuilding)
    except Timeout:
        raise StartError("another process has been migrating the database for 10 minutes") from None
    except DatabaseError as error:
        raise StartError(f"the database cannot be opened: {error.orig}; see docs/operation.md") from error
    except StorageUnavailable as error:
        raise StartError(f"the database cannot be used now: {error}") from error
    except StorageFailed as error:
        raise StartError(f"{error}; {_MEND}") from error
    except OSError as error:
        raise StartError(f"the state folder {state_directory} cannot be written: {error.strerror}") from error


def check_integrity(database: Database) -> None:
    """Let SQLite look over the whole file.

    Raises:
        StartError: it is damaged.
    """
    try:
        with database.reading() as connection:
            answer = [row[0] for row in connection.exec_driver_sql("PRAGMA quick_check(5)")]
    except StorageFailed as error:
        raise StartError(f"the database is damaged ({error}); {_MEND}") from error
    if answer != ["ok"]:
        raise StartError(f"the database is damaged: {'; '.join(map(str, answer))}; {_MEND}")


def _migrate(connection: Connection) -> None:
    current = _schema_of(connection)
    if current == SCHEMA:
        return
    # Only here: a process that finds the schema as it should be does without 10 MiB of Alembic.
    from alembic import command
    from alembic.config import Config as AlembicConfig
    from alembic.script import ScriptDirectory

    settings = AlembicConfig()
    settings.set_main_option("script_location", "ich_node.database:migrations")
    settings.attributes["connection"] = connection
    script = ScriptDirectory.from_config(settings)
    known = {revision.revision for revision in script.walk_revisions()}
    if current is not None and current not in known:
        raise StartError(f"the database has schema {current}, which is newer than this program ({SCHEMA}): upgrade it")
    command.upgrade(settings, "head")


def _schema_of(connection: Connection) -> str | None:
    if not inspect(connection).has_table("alembic_version"):
        return None
    return connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalar()


def _identify(connection: Connection, state_directory: Path, *, rebuilding: bool) -> str:
    """Say who this installation is. A file beside the database knows it too, for when that is lost."""
    installation_uid = connection.execute(select(InstallationRow.installation_uid)).scalar()
    remembered = read_installation(state_directory)
    if installation_uid is None:
        if not rebuilding and _holds_objects(state_directory):
            raise StartError(f"the database is gone, and the images and results that it knew are still there; {_MEND}")
        installation_uid = remembered or f"2.25.{uuid.uuid4().int}"
        values = {"id": 1, "installation_uid": installation_uid, "created_at": time.time()}
        connection.execute(insert(InstallationRow).values(values))
    if remembered != installation_uid:
        replace_durably(state_directory / _INSTALLATION, [f"{installation_uid}\n".encode()])
    return installation_uid


def read_installation(state_directory: Path) -> str | None:
    """Read who this installation is from the file beside the database; None where there is none."""
    try:
        return (state_directory / _INSTALLATION).read_text("ascii").strip() or None
    except (OSError, ValueError):
        return None


def _holds_objects(state_directory: Path) -> bool:
    return any(any(state_directory.glob(pattern)) for pattern in ("spool/*/*.dcm", "results/*.dcm"))
