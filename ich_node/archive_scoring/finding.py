"""Which files lie in an archive: in folders and in zip files."""

from __future__ import annotations

import os
import stat
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ich_node.records import ArchivedFile

_PREAMBLE_BYTES: Final = 132
_DICOM_MARK: Final = b"DICM"
_ZIP_MARKS: Final = (b"PK\x03\x04", b"PK\x05\x06")


@dataclass(frozen=True, slots=True)
class FoundFile:
    """A file that may be an image, or a zip file of them."""

    file: ArchivedFile
    is_zip: bool = False
    why: str = ""
    """Why it cannot be opened; empty where it can."""


def find_files(sources: Sequence[Path], leave_out: Collection[Path]) -> Iterator[FoundFile]:
    """Find every file below some folders, one after the other. Links to folders are not followed.

    Args:
        leave_out: files and folders that are not looked at, by the resolved paths of the folders that they lie in.
    """
    for number, source in enumerate(sources):
        for path in _paths(source.absolute(), leave_out):
            if (found := _found(number, path)) is not None:
                yield found


def shown(path: Path | str) -> str:
    """Give a name as printable text."""
    text = os.fsencode(path).decode("utf-8", "backslashreplace")
    return "".join(one if one.isprintable() else "?" for one in text)


def _paths(source: Path, leave_out: Collection[Path]) -> Iterator[Path]:
    if not source.is_dir():
        yield source
        return
    refused: list[OSError] = []
    for folder, folders, names in os.walk(source, onerror=refused.append):
        here, resolved = Path(folder), Path(folder).resolve()
        folders[:] = sorted(name for name in folders if resolved / name not in leave_out)
        yield from (here / name for name in sorted(names) if resolved / name not in leave_out)
        yield from (Path(os.fsdecode(one.filename)) for one in refused)
        refused.clear()
    yield from (Path(os.fsdecode(one.filename)) for one in refused)


def _found(source: int, path: Path) -> FoundFile | None:
    """Look at a file; None where it is none, such as a socket."""
    try:
        status = path.stat()
        file = ArchivedFile(source, path, None, shown(path), status.st_size, status.st_mtime_ns)
        if not stat.S_ISREG(status.st_mode):
            return FoundFile(file, why="the folder cannot be read") if stat.S_ISDIR(status.st_mode) else None
        with path.open("rb") as opened:
            beginning = opened.read(_PREAMBLE_BYTES)
    except OSError as error:
        unknown = ArchivedFile(source, path, None, shown(path), 0, 0)
        return FoundFile(unknown, why=f"cannot be read: {error.strerror}")
    return FoundFile(file, is_zip=beginning.startswith(_ZIP_MARKS) and not beginning.endswith(_DICOM_MARK))
