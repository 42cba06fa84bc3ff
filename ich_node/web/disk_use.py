"""How full the disk is, and with what."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass

from ich_node.config import Config
from ich_node.database import database_file
from ich_node.web.folder_sizes import FolderSize, FolderSizes

_MEBIBYTE = 1024 * 1024


@dataclass(frozen=True, slots=True)
class DiskUse:
    """The disk now, in bytes."""

    total: int
    free: int
    reserve: int
    database: Mapping[str, int]
    """The database, and its write-ahead log: ``database`` and ``wal``; empty where it is on a server."""
    folders: Mapping[str, FolderSize]
    """By name; one that is being added up is not there yet."""

    @property
    def is_full(self) -> bool:
        """Senders are refused."""
        return self.free < self.reserve

    @property
    def used_share(self) -> float:
        return 1.0 - self.free / self.total if self.total else 0.0


def look_at_disk(config: Config, sizes: FolderSizes) -> DiskUse:
    """Say how full it is.

    Raises:
        OSError: the disk cannot be looked at.
    """
    disk = shutil.disk_usage(config.state_directory)
    file = database_file(config.database_url)
    files = {} if file is None else {"database": file, "wal": file.with_name(f"{file.name}-wal")}
    return DiskUse(
        total=disk.total,
        free=disk.free,
        reserve=config.receiver.reserve_mib * _MEBIBYTE,
        database={name: path.stat().st_size for name, path in files.items() if path.exists()},
        folders=sizes.known(),
    )
