"""Frames of one file, without reading the others: a multi-frame object may be larger than memory allows."""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from contextlib import contextmanager
from copy import copy
from functools import lru_cache
from pathlib import Path
from typing import Final

from pydicom import Dataset
from pydicom.encaps import encapsulate, get_frame
from pydicom.uid import DeflatedExplicitVRLittleEndian

from ich_node.decode.file import damage_means, read_dataset, read_header
from ich_node.decode.header import frame_count
from ich_node.decode.limits import DecodeLimits
from ich_node.errors import Unreadable
from ich_node.records import NotAnalysedReason

_UNDEFINED_LENGTH: Final = 0xFFFFFFFF
_PIXEL_DATA: Final = b"\xe0\x7f\x10\x00"
_OFFSET_TABLES: Final = ("ExtendedOffsetTable", "ExtendedOffsetTableLengths")


@lru_cache(maxsize=1)
def header_of(path: Path, _changed_at_ns: int, limits: DecodeLimits) -> tuple[Dataset, int]:
    """Read a header once, however many planes ask for its frames; give it and where its pixel data element begins."""
    return read_header_and_end(path, limits)


def read_header_and_end(path: Path, limits: DecodeLimits) -> tuple[Dataset, int]:
    """Read everything before PixelData, and say at which byte that element begins.

    Raises:
        Unreadable: NOT_DICOM, or TOO_LARGE.
    """
    with path.open("rb") as file:
        header = read_header(path, limits, file)
        return header, file.tell()


@contextmanager
def open_frames(path: Path, header: Dataset, pixel_element_at: int) -> Iterator[FrameSource]:
    """Give the frames of a file one by one.

    Raises:
        Unreadable: there are no pixel data.
    """
    if header.file_meta.TransferSyntaxUID == DeflatedExplicitVRLittleEndian:
        yield FrameSource(header, read_dataset(path).get("PixelData") or b"", 0)
        return
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        yield FrameSource(header, content, _value_position(header, content, pixel_element_at))


class FrameSource:
    """The pixel data of one object, from which single frames are taken."""

    def __init__(self, header: Dataset, content: bytes | mmap.mmap, position: int) -> None:
        self._header = header
        self._content = content
        self._position = position
        self._frames = frame_count(header)

    def frame(self, index: int) -> Dataset:
        """Give a data set that holds frame ``index`` (from 0) and no other.

        Raises:
            Unreadable: the file ends before it.
        """
        single = Dataset()
        # copies: a value that is set here must not reach the header, which is kept for the next frame
        single.update({element.tag: copy(element) for element in self._header.group_dataset(0x0028)})
        single.file_meta = self._header.file_meta
        single.NumberOfFrames = 1
        encapsulated = self._header.file_meta.TransferSyntaxUID.is_encapsulated
        single.PixelData = self._codestream(index) if encapsulated else self._samples(index)
        single["PixelData"].VR = "OB" if encapsulated else "OW"
        single["PixelData"].is_undefined_length = encapsulated
        return single

    def _samples(self, index: int) -> bytes:
        bits = int(self._header.BitsAllocated) * int(self._header.Rows) * int(self._header.Columns)
        length = bits // 8
        start = self._position + index * length
        samples = bytes(self._content[start : start + length])
        if len(samples) < length:
            raise Unreadable(NotAnalysedReason.CANNOT_DECODE, "the pixel data end early")
        return samples + b"\0" * (len(samples) % 2)

    def _codestream(self, index: int) -> bytes:
        assert isinstance(self._content, mmap.mmap), "only native pixel data are read as a whole (deflated)"
        self._content.seek(self._position)
        offsets, lengths = (self._header.get(keyword) for keyword in _OFFSET_TABLES)
        codestream = get_frame(
            self._content,  # type: ignore[arg-type]  # asks for BinaryIO, of which it uses what a mmap has: read, seek, tell
            index,
            extended_offsets=(offsets, lengths) if offsets and lengths else None,
            number_of_frames=self._frames,
        )
        return encapsulate([codestream])


def _value_position(header: Dataset, content: mmap.mmap, at: int) -> int:
    """Where the value of PixelData begins (PS3.5 7.1)."""
    with damage_means(NotAnalysedReason.CANNOT_DECODE):
        big_endian = not header.file_meta.TransferSyntaxUID.is_little_endian
        tag = b"\x7f\xe0\x00\x10" if big_endian else _PIXEL_DATA
        if content[at : at + 4] != tag:
            raise Unreadable(NotAnalysedReason.NO_PIXEL_DATA, "no PixelData, or the file ends within it")
        implicit = header.file_meta.TransferSyntaxUID.is_implicit_VR
        length_at = at + (4 if implicit else 8)
        length = int.from_bytes(content[length_at : length_at + 4], "big" if big_endian else "little")
        if length != _UNDEFINED_LENGTH and length_at + 4 + length > len(content):
            raise Unreadable(NotAnalysedReason.NO_PIXEL_DATA, "no PixelData, or the file ends within it")
        return length_at + 4
