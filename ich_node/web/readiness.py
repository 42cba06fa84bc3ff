"""Whether the node can do its work: each thing that it needs, looked at for itself."""

from __future__ import annotations

import shutil
import threading
import time
from typing import Final

from ich_node.config import Config
from ich_node.database import open_database
from ich_node.queries import is_readable, is_writable
from ich_node.role_lock import role_is_held

_MEBIBYTE: Final = 1024 * 1024
_IN_TIME_S: Final = 1.0
"""A transaction that waits longer for its turn is none that a sender should wait for."""
_KEPT_S: Final = 1.0
"""However many ask: who is not logged in must not be able to keep the node busy."""


class Readiness:
    """Looks at what the node needs, at most once a second."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._database = open_database(config.database_url, _IN_TIME_S)
        self._lock = threading.Lock()
        self._looked_at = -_KEPT_S
        self._found: dict[str, bool] = {}

    def close(self) -> None:
        """Close its own connections."""
        self._database.close()

    def look(self) -> dict[str, bool]:
        """Say of each thing whether it is as it must be."""
        with self._lock:
            if time.monotonic() - self._looked_at >= _KEPT_S:
                self._found = self._look()
                self._looked_at = time.monotonic()
            return self._found

    def _look(self) -> dict[str, bool]:
        return {
            "database_readable": is_readable(self._database),
            "database_writable": is_writable(self._database),
            "disk": self._has_room(),
            **roles_alive(self._config),
        }

    def _has_room(self) -> bool:
        try:
            free = shutil.disk_usage(self._config.state_directory).free
        except OSError:
            return False
        return free >= self._config.receiver.reserve_mib * _MEBIBYTE


def roles_alive(config: Config) -> dict[str, bool]:
    """Say which roles of this host have a process: each holds a lock that the system frees however it ends.

    One that hangs holds its lock too, until ``serve`` or systemd, which hear its signs of life, end it.
    """
    return {role: role_is_held(config.host_directory, role) for role in config.node.roles}
