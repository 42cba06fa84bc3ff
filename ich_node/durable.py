"""Files that are whole or absent, whatever happens: they survive a power cut once the function has returned."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from ich_node.errors import SpoolFull
from ich_node.failpoint import reach

PART_SUFFIX: Final = ".part"
_NO_ROOM: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def write_durably(path: Path, pieces: Iterable[bytes | memoryview]) -> None:
    """Write a whole file or none.

    Raises:
        SpoolFull: there is no room; nothing is left behind.
    """
    part = path.with_suffix(PART_SUFFIX)
    with _naming_a_full_disk():
        try:
            _write_part(part, pieces)
            part.rename(path)
            reach("file-before-folder-sync")
            sync_directory(path.parent)
        except OSError:
            part.unlink(missing_ok=True)
            path.unlink(missing_ok=True)  # renamed, but not for sure
            raise


def replace_durably(path: Path, pieces: Iterable[bytes | memoryview]) -> None:
    """Write a whole file in the place of an older one, or leave that; what an interrupted writer left is put aside.

    Raises:
        SpoolFull: there is no room; the older file stays.
    """
    part = path.with_suffix(PART_SUFFIX)
    part.unlink(missing_ok=True)
    with _naming_a_full_disk():
        try:
            _write_part(part, pieces)
        except OSError:
            part.unlink(missing_ok=True)
            raise
        part.replace(path)
        sync_directory(path.parent)


def _write_part(part: Path, pieces: Iterable[bytes | memoryview]) -> None:
    with part.open("xb") as file:
        for piece in pieces:
            file.write(piece)
            reach("file-half-written")
        file.flush()
        reach("file-before-sync")
        os.fsync(file.fileno())
    reach("file-before-rename")


@contextmanager
def _naming_a_full_disk() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in _NO_ROOM:
            raise SpoolFull("no space left on the disk") from error
        raise


def sync_directory(directory: Path) -> None:
    """Make renames in a folder durable."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
