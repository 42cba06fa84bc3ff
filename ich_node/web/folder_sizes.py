"""How much lies in the folders of the node: counted now and then, in the background, since there may be millions."""

from __future__ import annotations

import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from ich_node.errors import StorageUnavailable
from ich_node.stored_files import StoredFiles

_FOLDERS: Final = ("spool", "results")
_A_FEW: Final = 500
_REST_S: Final = 0.02
"""After a few files: nobody else is to wait for this."""


@dataclass(frozen=True, slots=True)
class FolderSize:
    """What lies in a folder and those below it."""

    files: int
    size_bytes: int


class FolderSizes:
    """Knows how much lies in some folders, as of the last minutes."""

    def __init__(self, files: StoredFiles) -> None:
        self._files = files
        self._sizes: dict[str, FolderSize] = {}
        self._lock = threading.Lock()
        self._next_at = 0.0

    def known(self) -> dict[str, FolderSize]:
        """Give what is known now, and have it counted again where that was long ago."""
        with self._lock:
            is_due = time.monotonic() >= self._next_at
            if is_due:
                self._next_at = time.monotonic() + self._files.count_again_s
        if is_due:
            threading.Thread(target=self.look, name="folder sizes", daemon=True).start()
        return dict(self._sizes)

    def look(self) -> None:
        """Count."""
        for name in _FOLDERS:
            with suppress(OSError, StorageUnavailable):
                self._sizes[name] = self._size_of(name)
        with self._lock:
            self._next_at = time.monotonic() + self._files.count_again_s

    def _size_of(self, folder: str) -> FolderSize:
        files = size_bytes = 0
        for one in self._files.found(folder, ""):
            files, size_bytes = files + 1, size_bytes + one.size_bytes
            if files % _A_FEW == 0:
                time.sleep(_REST_S)
        return FolderSize(files, size_bytes)
