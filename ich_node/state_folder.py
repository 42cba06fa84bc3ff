"""The state folder holds patient data: it is ours alone (0700), or the node does not start."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Final

from ich_node.errors import StartError
from ich_node.log import EventLog

_OTHERS: Final = 0o077
_OF_OTHERS_TOO: Final = stat.S_ISVTX | stat.S_ISGID
"""What a folder has that many share, such as /tmp."""
_OURS: Final = ("ich-node.sqlite", "installation.json", "migrate.lock", "spool", "results")

_LOCK: Final = ".lock"

log = EventLog("state")


def make_state_folder(path: Path) -> None:
    """Make the state folder with mode 0700; narrow one that is the node's own and open to others.

    Raises:
        OSError: it cannot be made or looked at.
        StartError: it belongs to another user, or is open to others and holds what is not the node's.
    """
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    about = path.stat()
    if about.st_uid != os.geteuid() != 0:
        raise StartError(f"the state folder {path} belongs to user {about.st_uid}, not to who runs the node")
    if not about.st_mode & _OTHERS:
        return
    if not _may_be_narrowed(path, about):
        raise StartError(
            f"the state folder {path} is open to others (mode {stat.S_IMODE(about.st_mode):04o}) and holds what is not "
            "the node's: give the node a folder of its own (node.state_directory), with chmod 700"
        )
    path.chmod(0o700)
    log.warning("state folder was open to others and is closed now", mode=f"{stat.S_IMODE(about.st_mode):04o}")


def _may_be_narrowed(path: Path, about: os.stat_result) -> bool:
    """Only a folder of the node's is changed: with ``/tmp`` or a home by mistake, the machine would suffer."""
    if about.st_uid != os.geteuid() or about.st_mode & _OF_OTHERS_TOO:
        return False
    names = {one.name for one in path.iterdir()}
    fresh = all(name.endswith(_LOCK) for name in names)  # a role's own lock is in it before anything else
    return fresh or any(name in names for name in _OURS)
