"""The files of one series, on disk while it is scored: those in zip files are unpacked, and deleted after."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from ich_node.durable import troubles_are_named
from ich_node.errors import ZipRefused
from ich_node.records import ArchivedFile, BadFile
from ich_node.zip_members import copy_member

MOST_UNPACKED_BYTES: Final = 16 * 1024**3
"""Of one series."""
_PREFIX: Final = "ich-node-unpacked-"
_LEFT_AFTER_S: Final = 86400.0
"""No series takes so long."""


@contextmanager
def on_disk(
    files: Sequence[ArchivedFile], folder: Path | None, largest: int
) -> Iterator[tuple[dict[Path, str], list[BadFile]]]:
    """Give where each file lies, with the name that is shown of it, and which could not be unpacked.

    Args:
        folder: to unpack into; None: the system's for temporary files.
        largest: bytes of a member, unpacked.

    Raises:
        StorageUnavailable: there is no room to unpack into.
        StorageFailed: the disk failed.
    """
    names: dict[Path, str] = {}
    refused: list[BadFile] = []
    with tempfile.TemporaryDirectory(prefix=_PREFIX, dir=folder) as unpacked:
        left = MOST_UNPACKED_BYTES
        for number, file in enumerate(files):
            if file.member is None:
                names[file.path] = file.name
                continue
            to = Path(unpacked) / f"{number}.dcm"
            why = _unpack(file, file.member, to, min(largest, left))
            if why:
                refused.append(BadFile(file.name, why))
                continue
            names[to] = file.name
            left -= file.size
        yield names, refused


def delete_left_over() -> None:
    """Delete what was unpacked for temporary files by a process that was killed, once it is a day old."""
    before = time.time() - _LEFT_AFTER_S
    for one in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        with suppress(FileNotFoundError):  # others begin, too
            about = one.stat(follow_symlinks=False)
            if about.st_uid == os.getuid() and about.st_mtime < before:
                shutil.rmtree(one, ignore_errors=True)


def _unpack(file: ArchivedFile, member: int, to: Path, most: int) -> str:
    """Unpack a member; say why it cannot be, empty where it was."""
    if most < file.size:
        return f"its series unpacks to more than {MOST_UNPACKED_BYTES // 1024**3} GiB"
    try:
        with troubles_are_named():
            copy_member(file.path, member, to, most)
    except ZipRefused as error:
        to.unlink(missing_ok=True)
        return str(error)
    return ""
