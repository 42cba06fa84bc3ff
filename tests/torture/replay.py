"""A journal of the shim → what a disk may hold when the power fails after any of its records.

What was synced is kept. Of a file's writes since its last sync each sector is kept or not, at random; of a folder's
changes (creations, renamings, removals) since its last sync a beginning is kept, for a folder's changes are made in
order. Nothing else is promised by a file system, and so nothing else is assumed.
"""

from __future__ import annotations

import random
import struct
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

_HEAD: Final = struct.Struct("<IIQHHc3x")
_SECTOR: Final = 512


@dataclass(frozen=True, slots=True)
class Record:
    """One thing that was done: W write, T truncate, S sync, C create, R rename, U unlink, M make a folder."""

    kind: str
    pid: int
    path: str
    other: str
    number: int
    data: bytes


def read_journal(path: Path) -> list[Record]:
    """Read a journal; a record that a kill cut off at the end does not count."""
    content, position, records = path.read_bytes(), 0, []
    while position + _HEAD.size <= len(content):
        length, pid, number, first, second, kind = _HEAD.unpack_from(content, position)
        if position + length > len(content):
            break
        start = position + _HEAD.size
        path_, other = content[start : start + first].decode(), content[start + first : start + first + second].decode()
        data = content[start + first + second : position + length]
        records.append(Record(kind.decode(), pid, path_, other, number, data))
        position += length
    return records


Counts = Callable[[int, Sequence[Record]], bool]
"""Whether a sync counts, by its place in the journal."""


def every_sync(_index: int, _records: Sequence[Record]) -> bool:
    return True


def no_sync(_index: int, _records: Sequence[Record]) -> bool:
    """The control: as if fsync did nothing. A check that finds no fault then is blind."""
    return False


def syncs_of_normal(index: int, records: Sequence[Record]) -> bool:
    """The second control: ``synchronous=NORMAL``, which syncs the log only before it is copied into the database."""
    one = records[index]
    if not one.path.endswith("-wal"):
        return True
    following = next((other for other in records[index + 1 :] if other.pid == one.pid), None)
    return following is not None and following.path.endswith(".sqlite")


@dataclass(slots=True, eq=False)
class _File:
    """An inode: what is on the disk, and what was done since."""

    synced: bytearray = field(default_factory=bytearray)
    pending: list[Record] = field(default_factory=list)

    def sync(self) -> None:
        for one in self.pending:
            _put(self.synced, one, 0, len(one.data))
        self.pending = []


@dataclass(slots=True, eq=False)
class _Change:
    """A change of a folder: an entry that points to a file or folder, or to nothing any more."""

    entries: dict[str, _File | str | None]


class Disk:
    """A file system that forgets what was not synced."""

    def __init__(self) -> None:
        self._seen: dict[str, _File] = {}
        """By path, as programs saw it."""
        self._kept: dict[str, _File | str | None] = {}
        """By path, what is in folders that were synced."""
        self._changes: dict[str, list[_Change]] = defaultdict(list)
        """By folder, since its last sync."""

    def do(self, record: Record, *, counts: bool = True) -> None:
        """Follow one record."""
        if record.kind in "WT":
            self._seen.setdefault(record.path, _File()).pending.append(record)
        elif record.kind == "S":
            if counts:
                self._sync(record.path)
        elif record.kind == "C":
            file = _File()
            self._seen[record.path] = file
            self._change({record.path: file})
        elif record.kind == "M":
            self._change({record.path: "folder"})
        elif record.kind == "U":
            self._seen.pop(record.path, None)
            self._change({record.path: None})
        elif record.kind == "R":
            file = self._seen.pop(record.path)
            self._seen[record.other] = file
            self._change({record.path: None, record.other: file})

    def _change(self, entries: dict[str, _File | str | None]) -> None:
        (folder,) = {str(Path(path).parent) for path in entries}
        self._changes[folder].append(_Change(entries))

    def _sync(self, path: str) -> None:
        if path in self._seen:
            self._seen[path].sync()
        else:
            for change in self._changes.pop(path, []):
                self._kept.update(change.entries)

    def write_image(self, root: Path, was: Path, chance: random.Random) -> None:
        """Write what a power cut now leaves below ``root``, which stands for the folder that ``was``."""
        entries = dict(self._kept)
        for changes in self._changes.values():
            for change in changes[: chance.choice((0, len(changes), chance.randint(0, len(changes))))]:
                entries.update(change.entries)
        for path, what in sorted(entries.items()):
            place = root / Path(path).relative_to(was)
            if what == "folder":
                place.mkdir(parents=True, exist_ok=True)
        for path, what in entries.items():
            place = root / Path(path).relative_to(was)
            if isinstance(what, _File) and place.parent.is_dir():
                place.write_bytes(_torn(what, chance))


def _torn(file: _File, chance: random.Random) -> bytes:
    """What was synced, and of the rest nothing, all, or some sectors."""
    share = chance.choice((0.0, 1.0, chance.random()))
    content = bytearray(file.synced)
    for one in file.pending:
        for start in range(0, max(len(one.data), 1), _SECTOR):
            if chance.random() < share:
                _put(content, one, start, start + _SECTOR)
    return bytes(content)


def _put(content: bytearray, one: Record, start: int, end: int) -> None:
    """Apply a truncation, or a part of a write."""
    if one.kind == "T":
        del content[one.number :]
        content.extend(bytes(one.number - len(content)))
        return
    piece, at = one.data[start:end], one.number + start
    content.extend(bytes(max(0, at - len(content))))
    content[at : at + len(piece)] = piece


def cut(records: Sequence[Record], at: int, root: Path, was: Path, seed: int, counts: Counts = every_sync) -> None:
    """Write the image that a power cut after ``at`` records leaves of the folder that ``was``."""
    disk = Disk()
    for index, record in enumerate(records[:at]):
        if Path(record.path).is_relative_to(was):
            disk.do(record, counts=record.kind != "S" or counts(index, records))
    disk.write_image(root, was, random.Random(seed))
