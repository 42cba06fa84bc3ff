"""Where received images lie: random names of our own, written durably before anybody is told of success."""

from __future__ import annotations

import shutil
import struct
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from pydicom.uid import UID

from ich_node import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from ich_node.errors import ObjectStoreAway, SpoolFull
from ich_node.log import EventLog
from ich_node.receive import statuses
from ich_node.receive.statuses import RefusedDataSet
from ich_node.stored_files import FoundFile, StoredFiles

_PREAMBLE: Final = b"\0" * 128 + b"DICM"
_MEBIBYTE: Final = 1024 * 1024
_ENTERED_S: Final = 3600.0
"""So long after it was written a file has its row, or its host is gone."""

log = EventLog("receive")


class Spool:
    """Images of one node. Their names are random and ours; nothing of an object ends up in a name."""

    def __init__(self, files: StoredFiles, reserve_mib: int, mark: str = "") -> None:
        """Open it.

        Args:
            mark: ends the names of our files, where other hosts write too; empty: all are ours.
        """
        self._files = files
        self._mark = mark
        self._reserve_bytes = reserve_mib * _MEBIBYTE

    @property
    def incoming(self) -> Path:
        """The folder for what is not whole yet; its files have no names."""
        return self._files.state_directory / "spool"

    def prepare(self) -> None:
        """Make ready for writing, and remove what an interrupted write left.

        Raises:
            StartError: nothing can be written.
        """
        self._files.prepare()

    def write(self, pieces: Iterable[bytes | memoryview]) -> str:
        """Write a file durably.

        Returns:
            Its name: a path relative to the state folder, or to the bucket.

        Raises:
            SpoolFull: no room, or the reserve would be touched; no partial file is left.
            StorageUnavailable: it cannot be written now, or nobody knows whether it was.
        """
        if shutil.disk_usage(self.incoming).free < self._reserve_bytes:
            raise SpoolFull("the disk is filled up to its reserve")
        name = self._files.new_image()
        self._files.write(name, pieces)
        return name

    def remove(self, name: str) -> None:
        """Remove a file that no row speaks of. One that cannot be removed now is looked at by the next start."""
        try:
            self._files.delete(name)
        except ObjectStoreAway as error:
            log.warning("a file without a row stays until the next start", why=str(error))

    def files(self) -> Iterator[FoundFile]:
        """List the image files."""
        return self._files.found("spool", ".dcm")

    def is_left_over(self, file: FoundFile) -> bool:
        """Say of a file without a row whether a crash left it: another host may be about to enter a young one."""
        return Path(file.name).stem.endswith(self._mark) or file.written_at < time.time() - _ENTERED_S


def file_head(sop_class_uid: str, sop_instance_uid: str, transfer_syntax_uid: str, source_ae_title: str) -> bytes:
    """Encode preamble, prefix and file meta information (PS3.10 7.1)."""
    meta = b"".join(
        (
            _element(0x0001, b"OB", b"\x00\x01"),
            _element(0x0002, b"UI", sop_class_uid.encode()),
            _element(0x0003, b"UI", sop_instance_uid.encode()),
            _element(0x0010, b"UI", transfer_syntax_uid.encode()),
            _element(0x0012, b"UI", IMPLEMENTATION_CLASS_UID.encode()),
            _element(0x0013, b"SH", IMPLEMENTATION_VERSION_NAME.encode()),
            _element(0x0016, b"AE", source_ae_title.encode()),
        )
    )
    return _PREAMBLE + _element(0x0000, b"UL", struct.pack("<I", len(meta))) + meta


def _element(number: int, vr: bytes, value: bytes) -> bytes:
    """Encode an element of group 0002 in Explicit VR Little Endian (PS3.5 7.1.2), padded to even length (PS3.5 6.2)."""
    if len(value) % 2:
        value += b"\0" if vr == b"UI" else b" "
    length = struct.pack("<HI", 0, len(value)) if vr == b"OB" else struct.pack("<H", len(value))
    return struct.pack("<HH", 2, number) + vr + length + value


def split_file(part10: bytes) -> tuple[str, memoryview]:
    """Take one of our own files apart into its transfer syntax and its data set.

    Raises:
        RefusedDataSet: it is damaged.
    """
    start = _start_of_data_set(part10)
    syntax = _meta_value(part10[144:start], b"\x02\x00\x10\x00UI")
    if not UID(syntax).is_transfer_syntax:
        raise _damaged()
    return syntax, memoryview(part10)[start:]


def source_ae_title(part10: bytes) -> str:
    """Read from one of our own files who sent it (Source Application Entity Title).

    Raises:
        RefusedDataSet: it is damaged.
    """
    return _meta_value(part10[144 : _start_of_data_set(part10)], b"\x02\x00\x16\x00AE")


def _start_of_data_set(part10: bytes) -> int:
    if len(part10) < 144:
        raise _damaged()
    (group_length,) = struct.unpack_from("<I", part10, 140)
    return 144 + int(group_length)


def _meta_value(meta: bytes, element: bytes) -> str:
    """Read an element of group 0002 by its tag and VR."""
    position = meta.find(element) + len(element)
    if position < len(element) or position + 2 > len(meta):
        raise _damaged()
    (length,) = struct.unpack_from("<H", meta, position)
    value = meta[position + 2 : position + 2 + length]
    if not value.isascii():
        raise _damaged()
    return value.decode("ascii").strip("\0 ")


def _damaged() -> RefusedDataSet:
    return RefusedDataSet(statuses.CANNOT_UNDERSTAND, "its file meta information is damaged")
