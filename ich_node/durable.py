"""Files that are whole or absent, whatever happens: they survive a power cut once the function has returned."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from ich_node.errors import SpoolFull, SpoolReadOnly, StorageFailed
from ich_node.failpoint import reach

PART_SUFFIX: Final = ".part"
_NO_ROOM: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_FAILED: Final = (errno.EIO, errno.ENXIO, errno.EUCLEAN)


def write_durably(path: Path | str, pieces: Iterable[bytes | memoryview]) -> None:
    """Write a whole file or none.

    Raises:
        SpoolFull: there is no room; nothing is left behind.
        SpoolReadOnly: the disk is mounted read-only; nothing is left behind.
        StorageFailed: the disk failed. Never tried again here: an fsync that comes after may not tell of it.
    """
    whole = os.fspath(path)  # for every image: what is interned makes a table grow (docs/reliability.md, Soak)
    part = os.path.splitext(whole)[0] + PART_SUFFIX  # noqa: PTH122 - a text: pathlib interns each name
    with troubles_are_named():
        try:
            _write_part(part, pieces)
            os.rename(part, whole)  # noqa: PTH104 - a text: pathlib interns each name
            reach("file-before-folder-sync")
            sync_directory(os.path.dirname(whole))  # noqa: PTH120 - a text: pathlib interns each name
        except OSError:
            with suppress(OSError):  # the disk may have become read-only
                Path(part).unlink(missing_ok=True)
                Path(whole).unlink(missing_ok=True)  # renamed, but not for sure
            raise


def replace_durably(path: Path, pieces: Iterable[bytes | memoryview]) -> None:
    """Write a whole file in the place of an older one, or leave that; what an interrupted writer left is put aside.

    Raises:
        SpoolFull: there is no room; the older file stays.
        SpoolReadOnly: the disk is mounted read-only.
        StorageFailed: the disk failed.
    """
    part = path.with_suffix(PART_SUFFIX)
    with troubles_are_named():
        part.unlink(missing_ok=True)
        try:
            _write_part(part, pieces)
        except OSError:
            part.unlink(missing_ok=True)
            raise
        part.replace(path)
        sync_directory(path.parent)


def _write_part(part: Path | str, pieces: Iterable[bytes | memoryview]) -> None:
    with open(part, "xb") as file:  # noqa: PTH123 - takes texts: pathlib interns each name
        for piece in pieces:
            file.write(piece)
            reach("file-half-written")
        file.flush()
        reach("file-before-sync")
        os.fsync(file.fileno())
    reach("file-before-rename")


@contextmanager
def troubles_are_named() -> Iterator[None]:
    """Name what the system says of a disk that takes no more.

    Raises:
        SpoolFull: there is no room.
        SpoolReadOnly: the disk is mounted read-only.
        StorageFailed: the disk failed.
        OSError: anything else.
    """
    try:
        yield
    except OSError as error:
        if error.errno in _NO_ROOM:
            raise SpoolFull("no space left on the disk") from error
        if error.errno == errno.EROFS:
            raise SpoolReadOnly("the disk is mounted read-only") from error
        if error.errno in _FAILED:
            raise StorageFailed(f"the disk failed: {error.strerror}") from error
        raise


def sync_directory(directory: Path | str) -> None:
    """Make renames in a folder durable."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
