"""The files of one series, on disk while it is scored: those in zip files are unpacked, and deleted after."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from ich_node.durable import troubles_are_named
from ich_node.errors import ZipRefused
from ich_node.records import ArchivedFile, BadFile
from ich_node.zip_members import copy_member

MOST_UNPACKED_BYTES: Final = 16 * 1024**3
"""Of one series."""


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
    with tempfile.TemporaryDirectory(prefix="ich-node-", dir=folder) as unpacked:
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
    except OSError as error:
        to.unlink(missing_ok=True)
        return f"cannot be read: {error.strerror}"
    return ""
