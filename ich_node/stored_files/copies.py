"""Copies of stored files on this machine, for those who read them: as many as a limit allows, the latest used of all.

A copy that was used in the last quarter of an hour is never deleted: somebody may be about to open it. No file of the
node ever changes, so a copy is as good as what it was made of. Nothing is synced: no copy outlives a boot.
"""

from __future__ import annotations

import os
import shutil
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

from ich_node.durable import PART_SUFFIX, troubles_are_named
from ich_node.service import boot_id
from ich_node.stored_files.local import files_in

_IN_USE_S: Final = 900.0
_LONGEST_S: Final = 86400.0
"""What another machine deleted goes from here after this."""
_LOOK_EVERY: Final = 16
"""Looks at all copies, while as much is added as the limit allows."""


class LocalCopies:
    """A folder of copies; several processes may share it.

    Args:
        folder: of all machines and boots that share the state folder.
        most_bytes: of all copies, but for those in use.
    """

    def __init__(self, folder: Path, most_bytes: int) -> None:
        self._all = folder
        self._host = socket.gethostname()
        self._folder = folder / f"{self._host}.{boot_id()}"
        self._most_bytes = most_bytes
        self._added_bytes = most_bytes
        self._lock = threading.Lock()

    def path(self, name: str) -> Path:
        """Name the place of a copy, whether there is one or not."""
        return self._folder / name

    def name_of(self, path: Path) -> str:
        """Give the name of what a copy is of."""
        return str(path.relative_to(self._folder))

    def use(self, name: str) -> bool:
        """Say whether there is a copy, and keep it for those who read it now."""
        try:
            os.utime(self.path(name))
        except FileNotFoundError:
            return False
        return True

    def add(self, name: str, fetch: Callable[[Path], bool]) -> None:
        """Make a copy; none where there is nothing to be copied.

        Args:
            fetch: writes it into the file it is given, or says that there is nothing.

        Raises:
            SpoolFull: there is no room on this machine.
            StorageUnavailable: it cannot be fetched now.
        """
        path = self.path(name)
        part = path.with_name(f"{uuid.uuid4().hex}{PART_SUFFIX}")
        with troubles_are_named():
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                if fetch(part):
                    size_bytes = part.stat().st_size
                    part.rename(path)
                    self._note(size_bytes)
            finally:
                part.unlink(missing_ok=True)

    def forget(self, name: str) -> None:
        """Delete a copy."""
        self.path(name).unlink(missing_ok=True)

    def _note(self, size_bytes: int) -> None:
        with self._lock:
            self._added_bytes += size_bytes
            is_time = self._added_bytes * _LOOK_EVERY >= self._most_bytes
            if is_time:
                self._added_bytes = 0
        if is_time:
            self.clear_up()

    def clear_up(self) -> None:
        """Delete copies of before the boot, those that are a day old, and the oldest of what is too much."""
        for folder in self._all.glob("*"):
            if folder.name.rpartition(".")[0] == self._host and folder != self._folder:
                shutil.rmtree(folder, ignore_errors=True)
        now = time.time()
        copies = sorted(_copies_in(self._all))
        left = sum(size for _, size, _ in copies)
        for used_at, size, path in copies:
            if used_at > now - _IN_USE_S or (left <= self._most_bytes and used_at > now - _LONGEST_S):
                break
            path.unlink(missing_ok=True)
            left -= size


def _copies_in(folder: Path) -> Iterator[tuple[float, int, Path]]:
    """List when each was used last, how long it is, and where it lies."""
    for file in files_in(folder):
        with suppress(FileNotFoundError):
            about = file.stat(follow_symlinks=False)
            yield about.st_mtime, about.st_size, Path(file.path)
