"""What was scored, kept in parts: small files, each whole or absent, that a later run goes on from."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from ich_node.database.archive_index import ArchiveIndex
from ich_node.durable import PART_SUFFIX
from ich_node.score_table import ScoreRow, read_keys, write_part

_NAME: Final = re.compile(r"scored-(\d{8})\.parquet")


class Parts:
    """The parts in one folder, and their rows in the index."""

    def __init__(self, folder: Path, index: ArchiveIndex) -> None:
        self._folder = folder
        self._index = index
        self._next = 1

    def take_in(self) -> None:
        """Enter into the index what lies in the folder, and nothing else.

        Raises:
            DamagedTable: a part is damaged; what was scored last is lost with it if it is deleted.
        """
        for half_written in self._folder.glob(f"*{PART_SUFFIX}"):
            half_written.unlink()
        there = {number_of(one): one for one in self.files()}
        if self._index.parts() - there.keys():
            self._index.forget_parts()
        entered = self._index.parts()
        for number in sorted(there.keys() - entered):
            self._index.add_part(number, read_keys(there[number]))
        self._next = max(there, default=0) + 1

    def add(self, rows: Sequence[ScoreRow]) -> None:
        """Keep some rows; they survive a power cut once this has returned.

        Raises:
            StorageUnavailable: there is no room, or the disk is read-only.
            StorageFailed: the disk failed.
        """
        path = self._folder / f"scored-{self._next:08d}.parquet"
        write_part(path, rows)
        self._index.add_part(self._next, read_keys(path))
        self._next += 1

    def files(self) -> list[Path]:
        """Give the parts, the oldest first."""
        return sorted(one for one in self._folder.iterdir() if _NAME.fullmatch(one.name))


def number_of(part: Path) -> int:
    """Give the number of a part by its name."""
    found = _NAME.fullmatch(part.name)
    assert found is not None, "files() gives nothing else"
    return int(found[1])
