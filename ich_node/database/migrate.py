"""Bring the database to this version's schema, once, under a lock; refuse one that is newer or damaged."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final

from filelock import FileLock, Timeout
from sqlalchemy import Connection, inspect
from sqlalchemy.exc import DatabaseError

from ich_node.database.engine import Database
from ich_node.database.installation import Installation, begin_anew, identify, note_installation, stay_the_same
from ich_node.database.tables import SCHEMA
from ich_node.errors import StartError, StorageFailed, StorageUnavailable
from ich_node.failpoint import reach
from ich_node.state_folder import make_state_folder

_MEND: Final = "stop the node and run `ich-node rebuild`, or restore a backup: docs/operation.md"
_LONGEST_MIGRATION_S = 600.0


def prepare_database(
    database: Database, state_directory: Path, *, host_directory: Path | None = None, recover: bool = False
) -> str:
    """Check, migrate and identify the database; make the folders. The first process does it, the others wait.

    Args:
        database: to prepare.
        state_directory: made with mode 0700.
        host_directory: of this host alone, where several share the state folder; also made.
        recover: an empty database goes on as the installation that the state folder names.

    Returns:
        The installation UID, made at the first start.

    Raises:
        ConfigError: the state folder is a copy, or its database is another's or gone; see ``installation``.
        StartError: the database is damaged, or was written by a newer version; or the state folder cannot be written,
            or is open to others.
    """
    return _prepare(
        database,
        state_directory,
        host_directory,
        lambda connection: identify(connection, state_directory, recover=recover),
    )


def settle_installation(
    database: Database, state_directory: Path, *, host_directory: Path | None = None, anew: bool
) -> str:
    """Say that the installation of a database is here and nowhere else, or make it another one.

    Returns:
        The installation UID.

    Raises:
        StartError: see ``prepare_database``.
    """

    return _prepare(database, state_directory, host_directory, begin_anew if anew else stay_the_same)


def _prepare(
    database: Database,
    state_directory: Path,
    host_directory: Path | None,
    identity: Callable[[Connection], Installation],
) -> str:
    own = host_directory or state_directory
    try:
        make_state_folder(state_directory)
        make_state_folder(own)
        # hosts wait for each other in the database: a migration is one write transaction
        with FileLock(own / "migrate.lock", timeout=_LONGEST_MIGRATION_S):
            check_integrity(database)
            with database.writing() as connection:
                _migrate(connection)
                installation = identity(connection)
            note_installation(state_directory, installation, one_machine=own == state_directory)
            return installation.installation_uid
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
    """Let SQLite look over the whole file; a server looks after its own, and is asked how it sorts and encodes.

    Raises:
        StartError: it is damaged, or cannot be used.
    """
    try:
        with database.reading() as connection:
            faults = database.kind.faults(connection)
    except StorageFailed as error:
        raise StartError(f"the database is damaged ({error}); {_MEND}") from error
    if faults and database.file is None:
        raise StartError(f"the database cannot be used: {'; '.join(faults)}; see docs/operation.md")
    if faults:
        raise StartError(f"the database is damaged: {'; '.join(faults)}; {_MEND}")


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
    reach("migrated-before-commit")


def _schema_of(connection: Connection) -> str | None:
    if not inspect(connection).has_table("alembic_version"):
        return None
    return connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalar()
