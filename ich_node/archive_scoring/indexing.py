"""Which series the files of an archive belong to: read from headers once, and kept in an index on disk."""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Final

from ich_node.archive_scoring.finding import FoundFile, find_files, shown
from ich_node.database.archive_index import ArchiveIndex
from ich_node.decode import DecoderPool
from ich_node.decode.pool import HeaderTask
from ich_node.errors import ZipRefused
from ich_node.records import ArchivedFile, ArchivedHeader
from ich_node.zip_members import list_members

_AHEAD: Final = 32
"""Headers that are being read at once."""


def index_archive(
    index: ArchiveIndex,
    sources: Sequence[Path],
    leave_out: Collection[Path],
    decoder: DecoderPool,
    largest: int,
    progress: Callable[[], None],
) -> None:
    """Read the headers of all files that are new or changed since the index was last made.

    Args:
        leave_out: files and folders that are not looked at; see `find_files`.
        largest: bytes of a member of a zip file, unpacked.
        progress: called for each file.
    """
    reading = _Reading(index, decoder, progress)
    index.begin_scan()
    for found in find_files(sources, leave_out):
        if found.why:
            index.add(found.file, ArchivedHeader(why=found.why))
        elif found.is_zip:
            _index_zip(index, found, reading, largest)
        else:
            reading.begin(found.file)
    reading.finish()
    index.end_scan()


def _index_zip(index: ArchiveIndex, found: FoundFile, reading: _Reading, largest: int) -> None:
    path, status = found.file.path, (found.file.size, found.file.changed_ns, largest)
    if index.knows_zip(path, *status, source=found.file.source):
        return
    try:
        for member in list_members(path, largest):
            name = f"{found.file.name}/{shown(member.name)}"
            file = dataclasses.replace(
                found.file, member=member.number, name=name, size=member.size, checksum=member.checksum
            )
            if member.why:
                index.add(file, ArchivedHeader(why=member.why))
            else:
                reading.begin(file)
    except (ZipRefused, OSError) as error:
        why = error.strerror if isinstance(error, OSError) else str(error)
        index.add(found.file, ArchivedHeader(why=f"cannot be read: {why}" if isinstance(error, OSError) else str(why)))
    reading.finish()
    index.add_zip(path, *status)


class _Reading:
    """Headers on their way from the decoding children into the index."""

    def __init__(self, index: ArchiveIndex, decoder: DecoderPool, progress: Callable[[], None]) -> None:
        self._index = index
        self._decoder = decoder
        self._progress = progress
        self._tasks: deque[tuple[ArchivedFile, HeaderTask]] = deque()

    def begin(self, file: ArchivedFile) -> None:
        if self._index.knows(file):
            self._progress()
            return
        self._tasks.append((file, self._decoder.submit_header(file.path, file.member)))
        while len(self._tasks) > _AHEAD:
            self._settle()

    def finish(self) -> None:
        while self._tasks:
            self._settle()

    def _settle(self) -> None:
        file, task = self._tasks.popleft()
        self._index.add(file, task.result())
        self._progress()
