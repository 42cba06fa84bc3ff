"""Who this installation is: a UID in the database, and beside it a file that outlives the database.

The UID is part of every UID that the node makes, so two nodes must never share one. A restored backup is the same
installation and goes on; a copy for a test is not. The file also says where the installation is: on which machine, in
which folder. A copy is told by that, and nothing starts on it until a person has said which of the two it is.
"""

from __future__ import annotations

import hashlib
import json
import time
import uuid
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from filelock import FileLock
from sqlalchemy import Connection, delete, insert, select

from ich_node.database.tables import InstallationRow
from ich_node.durable import replace_durably
from ich_node.errors import ConfigError, SpoolFull, StartError
from ich_node.log import EventLog

INSTALLATION: Final = "installation.json"
_LOCK: Final = "installation.lock"
_MACHINE_ID: Final = Path("/etc/machine-id")
_NO_IDENTIFIER: Final = ("", "uninitialized")
"""What stands there before the first boot (machine-id(5))."""
_REMEDY: Final = (
    "is this the same node, moved or restored, and the other runs no more: `ich-node installation --here`; "
    "is it a copy, for a test for example: `ich-node installation --new`"
)


log = EventLog("state")


@dataclass(frozen=True, slots=True)
class Installation:
    """What ``installation.json`` holds; an older or foreign file may lack the place."""

    installation_uid: str
    created_at: float
    """Seconds since 1970 in UTC."""
    machine: str = ""
    """A digest of the machine's identifier, which is never written itself (machine-id(5)); empty where it has none, or
    where several share the folder."""
    directory: str = ""
    """The state folder."""


def read_installation(state_directory: Path) -> Installation | None:
    """Read who the installation of a state folder is; None where nothing says so.

    Raises:
        StartError: the file cannot be read or understood.
    """
    path = state_directory / INSTALLATION
    try:
        values: dict[str, Any] = json.loads(path.read_bytes())
        known = {name: values[name] for name in Installation.__slots__ if name in values}
        return Installation(**known | {"installation_uid": str(values["installation_uid"])})
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StartError(f"{path} cannot be read: {error.strerror}") from error
    except (ValueError, TypeError, KeyError) as error:
        raise StartError(f"{path} is damaged; delete it: it is written anew from the database") from error


def identify(connection: Connection, state_directory: Path, *, recover: bool = False) -> Installation:
    """Give the installation of a database, made at the first start; ``note_installation`` follows the commit.

    Args:
        connection: inside a write transaction.
        state_directory: with the file beside the database.
        recover: an empty database takes the installation of the file over, for who puts its content there.

    Raises:
        ConfigError: the state folder is a copy, or database and file are not of one installation.
        StartError: the database is gone, and what it knew is still there.
    """
    filed = read_installation(state_directory)
    row = connection.execute(select(InstallationRow)).one_or_none()
    if row is None and filed is not None and not recover:
        raise _unclear(
            state_directory,
            f"the database is empty, and this folder is that of installation {filed.installation_uid}: "
            "restore the database, or `ich-node rebuild` it; to begin anew: `ich-node installation --new`",
        )
    if row is None and not recover and _holds_objects(state_directory):
        raise StartError(
            "the database is gone, and the images and results that it knew are still there; stop the node and run "
            "`ich-node rebuild`, or restore a backup: docs/operation.md"
        )
    if row is None:
        return _enter(connection, filed or Installation(_new_uid(), time.time()))
    if filed is not None and filed.installation_uid != row.installation_uid:
        raise _unclear(
            state_directory,
            f"the database is of installation {row.installation_uid}, and this folder of "
            f"{filed.installation_uid}; {_REMEDY}",
        )
    if filed is not None:
        _check_place(filed, state_directory)
    return Installation(row.installation_uid, row.created_at)


def note_installation(state_directory: Path, installation: Installation, *, one_machine: bool = True) -> None:
    """Write the file beside the database where it is missing, or where the state folder was moved.

    Args:
        one_machine: False where several hosts share the folder: it belongs to none of them.
    """
    machine = _machine() if one_machine else ""
    here = Installation(installation.installation_uid, installation.created_at, machine, str(state_directory.resolve()))
    if read_installation(state_directory) == here:
        return
    content = json.dumps(asdict(here), indent=1) + "\n"
    try:
        with FileLock(state_directory / _LOCK):  # hosts may start at the same time
            replace_durably(state_directory / INSTALLATION, [content.encode()])
    except SpoolFull as error:  # a full disk keeps no node from starting: what it has is served
        log.warning("no room for installation.json; it is written at the next start", why=str(error))


def begin_anew(connection: Connection) -> Installation:
    """Make this another installation: what it reports from now on shares no UID with what was made before."""
    connection.execute(delete(InstallationRow))
    return _enter(connection, Installation(_new_uid(), time.time()))


def stay_the_same(connection: Connection) -> Installation:
    """Go on as the installation that the database names, wherever it lies now.

    Raises:
        StartError: it names none.
    """
    row = connection.execute(select(InstallationRow)).one_or_none()
    if row is None:
        raise StartError(
            "the database is empty, so there is nothing to go on with: restore it, or `ich-node rebuild` it"
        )
    return Installation(row.installation_uid, row.created_at)


def _holds_objects(state_directory: Path) -> bool:
    return any(any(state_directory.glob(pattern)) for pattern in ("spool/*/*.dcm", "results/*.dcm"))


def _enter(connection: Connection, installation: Installation) -> Installation:
    values = {"installation_uid": installation.installation_uid, "created_at": installation.created_at}
    connection.execute(insert(InstallationRow).values(id=1, **values))
    return installation


def _new_uid() -> str:
    return f"2.25.{uuid.uuid4().int}"


def _check_place(filed: Installation, state_directory: Path) -> None:
    machine, directory = _machine(), str(state_directory.resolve())
    if filed.machine and machine and filed.machine != machine:
        raise _unclear(state_directory, f"the state folder comes from another machine; {_REMEDY}")
    if filed.directory and filed.directory != directory and _is_still_there(filed, state_directory):
        raise _unclear(state_directory, f"the state folder is a copy of {filed.directory}; {_REMEDY}")


def _is_still_there(filed: Installation, state_directory: Path) -> bool:
    """Say whether the same installation lies in the former folder as well, and not only under two names."""
    former = Path(filed.directory)
    try:
        if former.samefile(state_directory):
            return False
        other = read_installation(former)
    except (OSError, StartError):
        return False
    return other is not None and other.installation_uid == filed.installation_uid


def _machine() -> str:
    try:
        identifier = _MACHINE_ID.read_text().strip()
    except OSError:
        return ""
    if identifier in _NO_IDENTIFIER:
        return ""
    return hashlib.sha256(f"ich-node {identifier}".encode()).hexdigest()[:32]


def _unclear(state_directory: Path, what: str) -> ConfigError:
    return ConfigError(state_directory / INSTALLATION, [what])
