"""Files of a source: in a folder, or in a zip archive that is read in place, however many it holds."""

import os
import struct
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NamedTuple
from zipfile import ZIP_DEFLATED, ZIP_STORED, BadZipFile, ZipFile, ZipInfo

from ich_node.errors import TrainingError, Unreadable
from ich_node.records import NotAnalysedReason

_LOCAL_HEADER: Final = struct.Struct("<4s22xHH")
_LOCAL_SIGNATURE: Final = b"PK\x03\x04"
_RAW_DEFLATE: Final = -15
_ENCRYPTED: Final = 1


class ZipMember(NamedTuple):
    """Where a file lies in its archive, so that a child need not read the directory of 752,803 others."""

    header_at: int
    stored_bytes: int
    file_bytes: int
    crc: int
    deflated: bool


class Entry(NamedTuple):
    """One file of a folder or archive."""

    name: str
    """Path within it, with slashes."""
    zipped: ZipMember | None = None

    @property
    def stem(self) -> str:
        return self.name.rpartition("/")[2].rpartition(".")[0] or self.name.rpartition("/")[2]

    @property
    def folder(self) -> str:
        """Name of the folder that it lies in."""
        return self.name.rpartition("/")[0].rpartition("/")[2]


def list_entries(place: Path) -> list[Entry]:
    """List every file of a folder or zip archive, by name; no file is opened.

    Raises:
        TrainingError: it is neither.
    """
    if place.is_dir():
        return sorted(Entry(name) for name in _names(place, ""))
    try:
        with ZipFile(place) as archive:
            return sorted(_member(place, info) for info in archive.infolist() if not info.is_dir())
    except FileNotFoundError:
        raise TrainingError(f"{place}: not there; give the folder or zip archive of the data set") from None
    except BadZipFile:
        raise TrainingError(f"{place}: neither a folder nor a zip archive; unpack it, or fetch it again") from None


def read_entry(place: Path, entry: Entry) -> bytes:
    """Read one file of a folder or archive.

    Raises:
        Unreadable: it is not there, or its archive is damaged here.
    """
    try:
        if entry.zipped is None:
            return (place / entry.name).read_bytes()
        return _unzip(place, entry.zipped)
    except (OSError, ValueError, zlib.error, struct.error) as error:
        raise Unreadable(NotAnalysedReason.CANNOT_DECODE, f"the file cannot be read ({type(error).__name__})") from None


@contextmanager
def as_file(place: Path, entry: Entry) -> Iterator[Path]:
    """Give a path under which an entry can be opened: its own, or that of a copy."""
    if entry.zipped is None:
        yield place / entry.name
        return
    content = read_entry(place, entry)
    with tempfile.NamedTemporaryFile(prefix="ich-train-") as copy:
        copy.write(content)
        copy.flush()
        yield Path(copy.name)


def _names(folder: Path, prefix: str) -> Iterator[str]:
    with os.scandir(folder) as found:
        for one in found:
            if one.is_dir():
                yield from _names(folder / one.name, f"{prefix}{one.name}/")
            else:
                yield prefix + one.name


def _member(place: Path, info: ZipInfo) -> Entry:
    if info.compress_type not in (ZIP_STORED, ZIP_DEFLATED) or info.flag_bits & _ENCRYPTED:
        raise TrainingError(
            f"{place}: {info.filename} is encrypted or packed unusually; unpack the archive and use that"
        )
    deflated = info.compress_type == ZIP_DEFLATED
    return Entry(info.filename, ZipMember(info.header_offset, info.compress_size, info.file_size, info.CRC, deflated))


def _unzip(place: Path, member: ZipMember) -> bytes:
    with place.open("rb") as file:
        file.seek(member.header_at)
        signature, name_bytes, extra_bytes = _LOCAL_HEADER.unpack(file.read(_LOCAL_HEADER.size))
        if signature != _LOCAL_SIGNATURE:
            raise ValueError("no file begins here")
        file.seek(name_bytes + extra_bytes, os.SEEK_CUR)
        content = file.read(member.stored_bytes)
    if member.deflated:
        content = zlib.decompressobj(_RAW_DEFLATE).decompress(content, member.file_bytes + 1)
    if len(content) != member.file_bytes or zlib.crc32(content) != member.crc:
        raise ValueError("length or CRC is not the archive's")
    return content
