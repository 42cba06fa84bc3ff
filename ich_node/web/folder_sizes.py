"""How much lies in the folders of the node: counted now and then, in the background, since there may be millions."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_AGAIN_S: Final = 600.0
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

    def __init__(self, state_directory: Path, names: tuple[str, ...] = ("spool", "results")) -> None:
        self._folders = {name: state_directory / name for name in names}
        self._sizes: dict[str, FolderSize] = {}
        self._lock = threading.Lock()
        self._next_at = 0.0

    def known(self) -> dict[str, FolderSize]:
        """Give what is known now, and have it counted again where that was long ago."""
        with self._lock:
            is_due = time.monotonic() >= self._next_at
            if is_due:
                self._next_at = time.monotonic() + _AGAIN_S
        if is_due:
            threading.Thread(target=self.look, name="folder sizes", daemon=True).start()
        return dict(self._sizes)

    def look(self) -> None:
        """Count."""
        for name, folder in self._folders.items():
            self._sizes[name] = _size_of(folder)
        with self._lock:
            self._next_at = time.monotonic() + _AGAIN_S


def _size_of(folder: Path) -> FolderSize:
    files = size_bytes = 0
    for size in _sizes_in(folder):
        files, size_bytes = files + 1, size_bytes + size
        if files % _A_FEW == 0:
            time.sleep(_REST_S)
    return FolderSize(files, size_bytes)


def _sizes_in(folder: Path) -> Iterator[int]:
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    yield from _sizes_in(Path(entry.path))
                else:
                    with suppress(FileNotFoundError):  # it was deleted meanwhile
                        yield entry.stat(follow_symlinks=False).st_size
    except OSError:  # the folder is gone
        return
