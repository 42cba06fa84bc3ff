"""Look over a received data set without decoding it: who it is, and whether all of it came."""

from __future__ import annotations

import math
import re
import struct
import time
import warnings
import zlib
from dataclasses import dataclass, field
from functools import cache, partial
from io import BytesIO
from typing import Any, BinaryIO, Final

from pydicom import DataElement, Dataset
from pydicom.dataelem import RawDataElement
from pydicom.errors import BytesLengthException
from pydicom.filereader import data_element_generator
from pydicom.tag import BaseTag, Tag
from pydicom.uid import RE_VALID_UID, UID

from ich_node.receive import statuses
from ich_node.receive.acquisition import ACQUISITION_KEYWORDS, acquired_at
from ich_node.receive.nesting import Budget, SequenceWalk
from ich_node.receive.statuses import RefusedDataSet
from ich_node.records import ANALYSED_SOP_CLASSES

_UID: Final = re.compile(r"[0-9.]{1,64}")
_UNDEFINED_LENGTH: Final = 0xFFFFFFFF
_END_TAG: Final = 0xFFFFFFFF
_EXPLICIT_END: Final = b"\xff\xff\xff\xffSH\0\0"
_IMPLICIT_END: Final = b"\xff\xff\xff\xff\0\0\0\0"
"""Put behind a data set: who reads whole elements meets it as one, where it ends; cut short, it is swallowed."""
_ITEM, _SEQUENCE_END = b"\xfe\xff\x00\xe0", b"\xfe\xff\xdd\xe0"
_COST_OF_A_STOP: Final = 20
"""In elements of the budget: to start pydicom again takes so long."""
_PIXEL_TAGS: Final = frozenset((0x7FE00008, 0x7FE00009, 0x7FE00010))
_WANTED: Final = [
    "SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "Modality", "Rows", "Columns",
    "SamplesPerPixel", "BitsAllocated", "NumberOfFrames", "PhotometricInterpretation", "PixelDataProviderURL",
    "StationName", "RequestedProcedurePriority", "PatientID", *ACQUISITION_KEYWORDS,
]  # fmt: skip
_WANTED_TAG: Final = {keyword: Tag(keyword) for keyword in _WANTED}
_WANTED_TAGS: Final[list[BaseTag | int]] = list(_WANTED_TAG.values())
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
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # pydicom's texts quote values
            reading = _Reading(file, size, syntax)
            header, pixels = reading.header(), reading.pixels
            identity = _identity(header)
            notes = _faults_of_uids(identity) + _check_pixels(header, pixels, syntax)
    except _UNPARSABLE as error:
        raise RefusedDataSet(statuses.CANNOT_UNDERSTAND, f"not parsable ({type(error).__name__})") from error
    return Identity(
        *identity,
        warnings=notes,
        acquired_at=acquired_at(partial(_text, header), time.time()),
        station_name=_text(header, "StationName"),
        requested_priority=_text(header, "RequestedProcedurePriority").upper(),
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


class _Reading:
    """One pass over a data set: pydicom reads the elements, and stops where the rest is to be passed over."""

    def __init__(self, file: BinaryIO, total: int, syntax: UID) -> None:
        self._file = file
        self._total = total
        self._is_implicit = syntax.is_implicit_VR
        self._is_little_endian = syntax.is_little_endian
        self._mark = len(end_mark(syntax))
        self._budget = Budget()
        self._walk = SequenceWalk(file, total, syntax, self._budget)
        self._stopped_at: _PixelElement | int | None = None
        """Pixel data, the begin of a sequence, or None: neither."""
        self._ended_at = self._last_tag = -1
        self.pixels: _PixelElement | None = None

    def header(self) -> Dataset:
        """Read what is wanted of the elements before the pixel data, and follow the others to the end.

        Raises:
            RefusedDataSet: they do not end where the data set does.
        """
        header: dict[BaseTag, RawDataElement | DataElement] = {}
        position: int | None = 0
        while position is not None:
            self._budget.spend(_COST_OF_A_STOP)
            has_pixels = self.pixels is not None
            self._stopped_at = None
            self._file.seek(position)
            elements = data_element_generator(
                self._file,
                self._is_implicit,
                self._is_little_endian,
                stop_when=self._stop,
                specific_tags=_WANTED_TAGS,
            )
            for element in elements:
                if not has_pixels:
                    header[element.tag] = element
            position = self._next()
        if self._ended_at != self._total:
            raise RefusedDataSet(statuses.CANNOT_UNDERSTAND, "the data set ends inside an element")
        return Dataset(header)

    def _stop(self, tag: BaseTag, vr: str | None, length: int) -> bool:
        start, number = self._file.tell(), int(tag)  # tags compare in Python, numbers do not
        self._budget.spend(1)
        if number == _END_TAG:
            self._ended_at = start - self._mark
            return True
        self._check_form(number, vr)
        if length != _UNDEFINED_LENGTH and start + length > self._total:
            raise RefusedDataSet(statuses.CANNOT_UNDERSTAND, "the data set ends inside an element")
        if number in _PIXEL_TAGS:
            self._stopped_at = _PixelElement(vr, length, start)
            self.pixels = self.pixels or self._stopped_at
        elif length == _UNDEFINED_LENGTH:
            self._stopped_at = start
        return self._stopped_at is not None

    def _check_form(self, tag: int, vr: str | None) -> None:
        """Refuse what no writer makes, and damage does: where a length is wrong, reading goes on in the middle."""
        if (vr is None) is not self._is_implicit:
            raise RefusedDataSet(statuses.CANNOT_UNDERSTAND, "it is not in the transfer syntax that was agreed on")
        if tag <= self._last_tag:
            why = "its elements are not in the order of their tags (PS3.5 7.1)"
            raise RefusedDataSet(statuses.CANNOT_UNDERSTAND, why)
        self._last_tag = tag

    def _next(self) -> int | None:
        stop = self._stopped_at
        if isinstance(stop, int):
            return self._walk.end_of(stop)
        if stop is not None and stop.length == _UNDEFINED_LENGTH:
            return _walk_fragments(self._file, stop.start, self._total, self._budget)
        return None if stop is None else stop.start + stop.length


def _identity(header: Dataset) -> tuple[str, str, str, str, str]:
    uids = [_uid(header, keyword) for keyword in _WANTED[:4]]
    return uids[0], uids[1], uids[2], uids[3], _text(header, "Modality")[:16]


def _uid(header: Dataset, keyword: str) -> str:
    value = _text(header, keyword)
    if not _UID.fullmatch(value):
        why = f"{keyword} is missing, or is not 1 to 64 digits and dots"
        raise RefusedDataSet(statuses.DATA_SET_DOES_NOT_MATCH_SOP_CLASS, why)
    return value


def _text(header: Dataset, keyword: str) -> str:
    """Return a value from its bytes: to have it decoded takes longer, and fails where the header has faults of form."""
    element = header.get_item(_WANTED_TAG[keyword], keep_deferred=True)
    value = element.value if element is not None else None
    text = value.decode("ascii", "replace").strip(" \0") if isinstance(value, bytes) else ""
    return text if text.isprintable() else "".join(one if one.isprintable() else "?" for one in text)


def _patient_id(header: Dataset) -> str:
    """Decode it as its character set says, where it needs one."""
    element = header.get_item(_WANTED_TAG["PatientID"], keep_deferred=True)
    raw = element.value if element is not None else None
    if not isinstance(raw, bytes) or raw.isascii():
        return _text(header, "PatientID")
    try:
        return str(header.PatientID or "").strip(" \0")
    except _UNPARSABLE:
        return raw.decode("latin-1").strip(" \0")


def _faults_of_uids(uids: tuple[str, ...]) -> tuple[str, ...]:
    pairs = zip(_WANTED, uids[:4], strict=False)
    return tuple(f"{keyword} is no valid UID (PS3.5 9.1)" for keyword, uid in pairs if not RE_VALID_UID.match(uid))


def _check_pixels(header: Dataset, pixels: _PixelElement | None, syntax: UID) -> tuple[str, ...]:
    if pixels is None:
        promised = header.get("Rows") or _text(header, "SOPClassUID") in ANALYSED_SOP_CLASSES
        if promised and not header.get("PixelDataProviderURL"):
            raise RefusedDataSet(statuses.CANNOT_UNDERSTAND, "the data set ends before its pixel data")
        return ()
    if pixels.length == _UNDEFINED_LENGTH:
        return () if syntax.is_encapsulated else ("fragments in an uncompressed transfer syntax",)
    if syntax.is_encapsulated:
        return ("pixel data of defined length in a compressed transfer syntax",)
    if pixels.length < _expected_bytes(header):
        raise RefusedDataSet(statuses.CANNOT_UNDERSTAND, "the pixel data are shorter than the header says")
    return ()


def _expected_bytes(header: Dataset) -> int:
    """Bytes that the image attributes announce (PS3.5 8.1.1); 0 where they do not say."""

    def number(keyword: str, default: int) -> int:
        element = header.get_item(_WANTED_TAG[keyword], keep_deferred=True)
        if element is None:
            return default
        if keyword in _US_KEYWORDS and isinstance(element, RawDataElement) and element.VR in (None, "US"):
            raw = element.value
            if raw is not None and len(raw) == 2:  # pydicom takes ten times as long to make a number of it
                return int.from_bytes(raw, "little" if element.is_little_endian else "big")
        value: Any = header.get(keyword)
        return int(value) if value not in (None, "") else default

    samples = number("SamplesPerPixel", 1)
    if _text(header, "PhotometricInterpretation") == "YBR_FULL_422":
        samples = 2
    values = number("Rows", 0) * number("Columns", 0) * samples * number("NumberOfFrames", 1)
    return math.ceil(values * number("BitsAllocated", 0) / 8)


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
