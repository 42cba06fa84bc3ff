"""Members of a zip file, read one by one under limits. No file is ever written under a name that stands in one."""

from __future__ import annotations

import os
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import IO, Final

from ich_node.errors import ZipRefused

MOST_MEMBERS: Final = 200_000
"""Of one zip file: its directory is held in memory."""
_LARGEST_DIRECTORY_BYTES: Final = 64 * 1024 * 1024
_READABLE: Final = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_ENCRYPTED: Final = 0x1
_PIECE_BYTES: Final = 1024 * 1024
_END_MARK: Final = b"PK\x05\x06"
_LONGEST_END: Final = 22 + 65535
_END_64_MARK: Final = b"PK\x06\x06"
_DAMAGED: Final = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError, LookupError)


@dataclass(frozen=True, slots=True)
class ZipMember:
    """One entry of a zip file's directory."""

    number: int
    name: str
    size: int
    checksum: int
    why: str
    """Why it is not read; empty where it is."""


def list_members(path: Path, largest: int) -> Iterator[ZipMember]:
    """List the files in a zip file, and say of each whether it can be read.

    Args:
        largest: bytes that one may have, unpacked.

    Raises:
        ZipRefused: it is damaged, or has too many members.
        OSError: it cannot be read.
    """
    opened = _opened(path, path.stat().st_mtime_ns)
    for number, one in enumerate(opened.infolist()):
        if not one.is_dir():
            yield ZipMember(number, one.filename, one.file_size, one.CRC, _why_not(one, largest))


@contextmanager
def open_member(path: Path, number: int) -> Iterator[IO[bytes]]:
    """Read one member as a stream.

    Raises:
        ZipRefused: the zip file is damaged.
        OSError: it cannot be read.
    """
    opened = _opened(path, path.stat().st_mtime_ns)
    try:
        with opened.open(opened.infolist()[number]) as stream:
            yield stream
    except _DAMAGED as error:
        raise ZipRefused(f"damaged within the zip file ({type(error).__name__})") from error


def copy_member(path: Path, number: int, to: Path, largest: int) -> None:
    """Unpack one member into a file, and no more of it than its directory announced and the limit allows.

    Raises:
        ZipRefused: it is damaged, or larger, or the zip file cannot be read.
        OSError: the other file cannot be written.
    """
    with to.open("xb") as file:
        for piece in _pieces(path, number, largest):
            file.write(piece)


def _pieces(path: Path, number: int, largest: int) -> Iterator[bytes]:
    left = largest
    try:
        with open_member(path, number) as stream:
            while piece := stream.read(min(_PIECE_BYTES, left + 1)):
                left -= len(piece)
                if left < 0:
                    raise ZipRefused(f"unpacks to more than {largest // 1024 // 1024} MiB")
                yield piece
    except OSError as error:
        raise ZipRefused(f"cannot be read: {error.strerror}") from error


@lru_cache(maxsize=1)
def _opened(path: Path, _changed_at_ns: int) -> zipfile.ZipFile:
    """Read the directory once, however many members are asked for."""
    _check_directory(path)
    try:
        return zipfile.ZipFile(path)
    except _DAMAGED as error:
        raise ZipRefused(f"damaged zip file ({type(error).__name__})") from error


def _check_directory(path: Path) -> None:
    """Bound the directory before ``zipfile`` reads all of it into memory (APPNOTE.TXT 4.3.14 and 4.3.16)."""
    with path.open("rb") as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - _LONGEST_END))
        tail = file.read()
    end = tail.rfind(_END_MARK)
    if end < 0 or len(tail) < end + 22:
        raise ZipRefused("damaged zip file (it has no directory)")
    members, size = _number(tail, end + 10, 2), _number(tail, end + 12, 4)
    end_64 = tail.rfind(_END_64_MARK, 0, end)
    if end_64 >= 0:
        members, size = _number(tail, end_64 + 32, 8), _number(tail, end_64 + 40, 8)
    if members > MOST_MEMBERS or size > _LARGEST_DIRECTORY_BYTES:
        raise ZipRefused(f"has more than {MOST_MEMBERS} members, or their names are too long; unpack it into a folder")


def _number(content: bytes, at: int, length: int) -> int:
    return int.from_bytes(content[at : at + length], "little")


def _why_not(one: zipfile.ZipInfo, largest: int) -> str:
    if one.flag_bits & _ENCRYPTED:
        return "encrypted in the zip file"
    if one.compress_type not in _READABLE:
        return "packed by another method than deflate"
    if one.filename.lower().endswith(".zip"):
        return "a zip file within a zip file is not read"
    if one.file_size > largest:
        return f"unpacks to more than {largest // 1024 // 1024} MiB"
    return ""
