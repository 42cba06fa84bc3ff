"""Look over a received data set without decoding it: who it is, and whether all of it came."""

from __future__ import annotations

import math
import re
import struct
import time
import warnings
import zlib
from dataclasses import dataclass, field
from functools import cache, lru_cache
from io import BytesIO
from typing import Any, BinaryIO, Final, cast

from pydicom import DataElement, Dataset
from pydicom.charset import convert_encodings
from pydicom.dataelem import RawDataElement, empty_value_for_VR
from pydicom.errors import BytesLengthException
from pydicom.tag import BaseTag, Tag
from pydicom.uid import RE_VALID_UID, UID
from pydicom.valuerep import VR
from pydicom.values import convert_string

from ich_node.receive import statuses
from ich_node.receive.acquisition import ACQUISITION_KEYWORDS, acquired_at
from ich_node.receive.nesting import LONG_VRS, Budget, SequenceWalk
from ich_node.receive.statuses import RefusedDataSet
from ich_node.records import ANALYSED_SOP_CLASSES

_UID: Final = re.compile(r"[0-9.]{1,64}")
_UNDEFINED_LENGTH: Final = 0xFFFFFFFF
_END_TAG, _ITEM_END = 0xFFFFFFFF, 0xFFFEE00D
_ENDS: Final = (_END_TAG, _ITEM_END)
_EXPLICIT_END: Final = b"\xff\xff\xff\xffSH\0\0"
_IMPLICIT_END: Final = b"\xff\xff\xff\xff\0\0\0\0"
"""Put behind a data set: who reads whole elements meets it as one, where it ends; cut short, it is swallowed."""
_ITEM, _SEQUENCE_END = b"\xfe\xff\x00\xe0", b"\xfe\xff\xdd\xe0"
_PIXEL_TAGS: Final = frozenset((0x7FE00008, 0x7FE00009, 0x7FE00010))
_WANTED: Final = [
    "SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "Modality", "Rows", "Columns",
    "SamplesPerPixel", "BitsAllocated", "NumberOfFrames", "PhotometricInterpretation", "PixelDataProviderURL",
    "StationName", "RequestedProcedurePriority", "PatientID", "SpecificCharacterSet", *ACQUISITION_KEYWORDS,
]  # fmt: skip
_TAGS: Final[dict[str, int]] = {keyword: int(Tag(keyword)) for keyword in _WANTED}
_WANTED_TAGS: Final = frozenset(_TAGS.values())
_VRS: Final = {str(vr).encode(): str(vr) for vr in VR}
_WINDOW: Final = 16 * 1024
"""Bytes that are read at once: most headers have less."""
_LONGEST_HEAD: Final = 12
_LONGEST_VALUE: Final = 4096
"""Bytes that are read of a value; what is wanted is a tenth of that at most."""
_US_KEYWORDS: Final = frozenset(("Rows", "Columns", "SamplesPerPixel", "BitsAllocated"))
_UNPARSABLE: Final = (
    ValueError, TypeError, KeyError, AttributeError, IndexError, NotImplementedError, EOFError, OSError,
    OverflowError, RecursionError, LookupError, struct.error, zlib.error, BytesLengthException,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Identity:
    """Which object this is, and what decides how soon it is analysed."""

    sop_class_uid: str
    sop_instance_uid: str
    study_instance_uid: str
    series_instance_uid: str
    modality: str
    warnings: tuple[str, ...] = ()
    acquired_at: float | None = None
    """Seconds since 1970; None where the header does not say."""
    station_name: str = ""
    requested_priority: str = ""
    """RequestedProcedurePriority in capitals; empty where it is absent."""
    patient_id: str = field(default="", repr=False)
    """For the audit trail alone."""


@dataclass(slots=True)
class _PixelElement:
    vr: str | None
    length: int
    start: int


@dataclass(frozen=True, slots=True)
class _Element:
    vr: str | None
    length: int
    start: int
    value: bytes


def identify(encoded: bytes | memoryview, transfer_syntax_uid: str) -> Identity:
    """Read the identifiers of an encoded data set and check that nothing of it is missing.

    Args:
        encoded: the data set as it came over the network, without file meta.

    Raises:
        RefusedDataSet: identifiers missing or malformed (0xA900); not parsable, cut short, or less pixel data than
            Rows, Columns and the rest announce (0xC000).
    """
    file = BytesIO(b"".join((encoded, end_mark(transfer_syntax_uid))))
    return identify_file(file, len(encoded), transfer_syntax_uid)


def end_mark(transfer_syntax_uid: str) -> bytes:
    """Give what `identify_file` wants to find behind a data set."""
    return _IMPLICIT_END if _syntax(transfer_syntax_uid).is_implicit_VR else _EXPLICIT_END


@cache
def _syntax(uid: str) -> UID:
    """Give one that was accepted, so there are few: to make a UID, and to ask it, takes as long as ten elements."""
    return UID(uid)


def identify_file(file: BinaryIO, size: int, transfer_syntax_uid: str) -> Identity:
    """Do as `identify`, with a file that holds a data set of ``size`` bytes and behind it the end mark."""
    syntax = _syntax(transfer_syntax_uid)
    try:
        reading = _Reading(file, size, syntax)
        header, pixels = reading.header(), reading.pixels
        identity = _identity(header)
        _check_character_set(header.raw("SpecificCharacterSet") or b"")
        notes = _faults_of_uids(identity) + _check_pixels(header, pixels, syntax)
    except _UNPARSABLE as error:
        raise RefusedDataSet(statuses.CANNOT_UNDERSTAND, f"not parsable ({type(error).__name__})") from error
    return Identity(
        *identity,
        warnings=notes,
        acquired_at=acquired_at(header.text, time.time()),
        station_name=header.text("StationName"),
        requested_priority=header.text("RequestedProcedurePriority").upper(),
        patient_id=_patient_id(header),
    )


def check_agreement(identity: Identity, sop_class_uid: str, sop_instance_uid: str) -> None:
    """Compare the data set with the command set (PS3.4 B.2.2).

    Raises:
        RefusedDataSet: they differ.
    """
    if identity.sop_instance_uid != sop_instance_uid or identity.sop_class_uid != sop_class_uid:
        why = "the SOP Class or Instance UID of command set and data set differ"
        raise RefusedDataSet(statuses.DATA_SET_DOES_NOT_MATCH_SOP_CLASS, why)


class _Header:
    """What is wanted of a header, as it is encoded."""

    def __init__(self, syntax: UID) -> None:
        self._syntax = syntax
        self._found: dict[int, _Element] = {}

    def add(self, tag: int, element: _Element) -> None:
        self._found[tag] = element

    def raw(self, keyword: str) -> bytes | None:
        """Give the bytes of a value; None where it is absent."""
        element = self._found.get(_TAGS[keyword])
        return None if element is None else element.value

    def text(self, keyword: str) -> str:
        """Give a value from its bytes: to decode it takes longer, and fails where the header has faults of form."""
        text = (self.raw(keyword) or b"").decode("ascii", "replace").strip(" \0")
        return text if text.isprintable() else "".join(one if one.isprintable() else "?" for one in text)

    def decoded(self, keyword: str) -> Any:
        """Let pydicom decode a value."""
        elements: dict[BaseTag, DataElement | RawDataElement] = {}
        little, implicit = self._syntax.is_little_endian, self._syntax.is_implicit_VR
        for number, one in self._found.items():
            value = one.value if one.length else cast(bytes | None, empty_value_for_VR(one.vr, raw=True))
            tag = BaseTag(number)
            elements[tag] = RawDataElement(tag, one.vr, one.length, value, one.start, implicit, little)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # pydicom's texts quote values
            return Dataset(elements).get(keyword)

    def number(self, keyword: str, default: int) -> int:
        """Give a whole number."""
        element = self._found.get(_TAGS[keyword])
        if element is None:
            return default
        if keyword in _US_KEYWORDS and element.vr in (None, "US") and element.length == 2:
            return int.from_bytes(element.value, "little" if self._syntax.is_little_endian else "big")
        value = self.decoded(keyword)
        return int(value) if value not in (None, "") else default


class _Reading:
    """One pass over a data set, from the head of one element to that of the next (PS3.5 7.1).

    pydicom's own took twice as long; what it takes for a VR, we take.
    """

    def __init__(self, file: BinaryIO, total: int, syntax: UID) -> None:
        self._file = file
        self._total = total
        self._syntax, self._is_implicit = syntax, syntax.is_implicit_VR  # to ask it takes as long as an element
        order = "<" if syntax.is_little_endian else ">"
        self._implicit_head = struct.Struct(order + "HHL").unpack_from
        self._explicit_head = struct.Struct(order + "HH2sH").unpack_from
        self._long = struct.Struct(order + "L").unpack_from
        self._budget = Budget()
        self._last_tag = -1
        self._window, self._window_at = b"", 0
        self.pixels: _PixelElement | None = None

    def header(self) -> _Header:
        """Read what is wanted of the elements before the pixel data, and follow the others to the end.

        Raises:
            RefusedDataSet: they do not end where the data set does.
        """
        header, position, head_of = _Header(self._syntax), 0, self._head
        while True:
            self._budget.spend(1)
            tag, vr, length, start = head_of(position)
            if tag in _ENDS:
                break
            self._check_form(tag, vr)
            if length == _UNDEFINED_LENGTH:
                position = self._pass_over(tag, vr, start)
                continue
            if start + length > self._total:
                raise RefusedDataSet(statuses.CANNOT_UNDERSTAND, "the data set ends inside an element")
            if tag in _PIXEL_TAGS:
                self.pixels = self.pixels or _PixelElement(vr, length, start)
            elif tag in _WANTED_TAGS and self.pixels is None:
                value = self._bytes(start, min(length, _LONGEST_VALUE))
                header.add(tag, _Element(vr, len(value), start, value))
            position = start + length
        if tag != _END_TAG or position != self._total:
            raise RefusedDataSet(statuses.CANNOT_UNDERSTAND, "the data set ends inside an element")
        return header

    def _head(self, position: int) -> tuple[int, str | None, int, int]:
        """Give tag, VR, length and where the value begins."""
        at = position - self._window_at
        if not 0 <= at <= len(self._window) - _LONGEST_HEAD:
            self._file.seek(position)
            self._window, self._window_at, at = self._file.read(_WINDOW), position, 0
        if self._is_implicit:
            group, element, length = self._implicit_head(self._window, at)
            return group << 16 | element, None, length, position + 8
        group, element, encoded_vr, length = self._explicit_head(self._window, at)
        vr = _VRS.get(encoded_vr)
        if vr is None:  # as pydicom, which takes what cannot be one for an element without
            vr = encoded_vr.decode("latin-1") if b"AA" <= encoded_vr <= b"ZZ" else None
        elif encoded_vr in LONG_VRS:
            return group << 16 | element, vr, self._long(self._window, at + 8)[0], position + 12
        return group << 16 | element, vr, length, position + 8

    def _bytes(self, start: int, length: int) -> bytes:
        begin = start - self._window_at
        if begin + length <= len(self._window):
            return self._window[begin : begin + length]
        self._file.seek(start)
        return self._file.read(length)

    def _pass_over(self, tag: int, vr: str | None, start: int) -> int:
        """Give where a value of undefined length ends."""
        if tag in _PIXEL_TAGS:
            self.pixels = self.pixels or _PixelElement(vr, _UNDEFINED_LENGTH, start)
            return _walk_fragments(self._file, start, self._total, self._budget)
        return SequenceWalk(self._file, self._total, self._syntax, self._budget).end_of(start)

    def _check_form(self, tag: int, vr: str | None) -> None:
        """Refuse what no writer makes, and damage does: where a length is wrong, reading goes on in the middle."""
        if (vr is None) is not self._is_implicit:
            raise RefusedDataSet(statuses.CANNOT_UNDERSTAND, "it is not in the transfer syntax that was agreed on")
        if tag <= self._last_tag:
            why = "its elements are not in the order of their tags (PS3.5 7.1)"
            raise RefusedDataSet(statuses.CANNOT_UNDERSTAND, why)
        self._last_tag = tag


def _identity(header: _Header) -> tuple[str, str, str, str, str]:
    uids = [_uid(header, keyword) for keyword in _WANTED[:4]]
    return uids[0], uids[1], uids[2], uids[3], header.text("Modality")[:16]


def _uid(header: _Header, keyword: str) -> str:
    value = header.text(keyword)
    if not _UID.fullmatch(value):
        why = f"{keyword} is missing, or is not 1 to 64 digits and dots"
        raise RefusedDataSet(statuses.DATA_SET_DOES_NOT_MATCH_SOP_CLASS, why)
    return value


def _patient_id(header: _Header) -> str:
    """Decode it as its character set says, where it needs one."""
    raw = header.raw("PatientID")
    if raw is None or raw.isascii():
        return header.text("PatientID")
    try:
        return str(header.decoded("PatientID") or "").strip(" \0")
    except _UNPARSABLE:
        return raw.decode("latin-1").strip(" \0")


@lru_cache(maxsize=64)
def _check_character_set(value: bytes) -> None:
    """Raise one of _UNPARSABLE where pydicom could read nothing of the object for its character set."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # an unknown one is no trouble
        convert_encodings(convert_string(value, is_little_endian=True))


def _faults_of_uids(uids: tuple[str, ...]) -> tuple[str, ...]:
    pairs = zip(_WANTED, uids[:4], strict=False)
    return tuple(f"{keyword} is no valid UID (PS3.5 9.1)" for keyword, uid in pairs if not RE_VALID_UID.match(uid))


def _check_pixels(header: _Header, pixels: _PixelElement | None, syntax: UID) -> tuple[str, ...]:
    if pixels is None:
        promised = header.decoded("Rows") or header.text("SOPClassUID") in ANALYSED_SOP_CLASSES
        if promised and not header.decoded("PixelDataProviderURL"):
            raise RefusedDataSet(statuses.CANNOT_UNDERSTAND, "the data set ends before its pixel data")
        return ()
    if pixels.length == _UNDEFINED_LENGTH:
        return () if syntax.is_encapsulated else ("fragments in an uncompressed transfer syntax",)
    if syntax.is_encapsulated:
        return ("pixel data of defined length in a compressed transfer syntax",)
    if pixels.length < _expected_bytes(header):
        raise RefusedDataSet(statuses.CANNOT_UNDERSTAND, "the pixel data are shorter than the header says")
    return ()


def _expected_bytes(header: _Header) -> int:
    """Bytes that the image attributes announce (PS3.5 8.1.1); 0 where they do not say."""
    subsampled = header.text("PhotometricInterpretation") == "YBR_FULL_422"
    samples = 2 if subsampled else header.number("SamplesPerPixel", 1)
    values = header.number("Rows", 0) * header.number("Columns", 0) * samples * header.number("NumberOfFrames", 1)
    return math.ceil(values * header.number("BitsAllocated", 0) / 8)


def _walk_fragments(file: BinaryIO, position: int, total: int, budget: Budget) -> int:
    """Follow encapsulated fragments to the sequence delimiter (PS3.5 A.4); return where it ends."""
    while position + 8 <= total:
        budget.spend(1)
        file.seek(position)
        head = file.read(8)
        (length,) = struct.unpack_from("<I", head, 4)
        position += 8
        if head[:4] == _SEQUENCE_END:
            return position
        if head[:4] != _ITEM or length == _UNDEFINED_LENGTH:
            raise RefusedDataSet(statuses.CANNOT_UNDERSTAND, "the compressed pixel data are damaged")
        position += length
    raise RefusedDataSet(statuses.CANNOT_UNDERSTAND, "the compressed pixel data end before their delimiter")
