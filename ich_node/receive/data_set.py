"""Look over a received data set without decoding it: who it is, and whether all of it came."""

from __future__ import annotations

import math
import re
import struct
import time
import warnings
import zlib
from dataclasses import dataclass, field
from functools import partial
from io import BytesIO
from typing import Any, Final

from pydicom import Dataset
from pydicom.errors import BytesLengthException
from pydicom.filereader import read_dataset
from pydicom.tag import BaseTag, Tag
from pydicom.uid import UID

from ich_node.receive import statuses
from ich_node.receive.acquisition import ACQUISITION_KEYWORDS, acquired_at
from ich_node.records import ANALYSED_SOP_CLASSES

_UID: Final = re.compile(r"[0-9.]{1,64}")
_UNDEFINED_LENGTH: Final = 0xFFFFFFFF
_END_TAG: Final = 0xFFFFFFFF
_EXPLICIT_END: Final = b"\xff\xff\xff\xffSH\0\0"
_IMPLICIT_END: Final = b"\xff\xff\xff\xff\0\0\0\0"
"""Put behind a data set: who reads whole elements meets it as one, where it ends; cut short, it is swallowed."""
_ITEM, _SEQUENCE_END = b"\xfe\xff\x00\xe0", b"\xfe\xff\xdd\xe0"
_PIXEL_TAGS: Final = (0x7FE00008, 0x7FE00009, 0x7FE00010)
_WANTED: Final = [
    "SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "Modality", "Rows", "Columns",
    "SamplesPerPixel", "BitsAllocated", "NumberOfFrames", "PhotometricInterpretation", "PixelDataProviderURL",
    "StationName", "RequestedProcedurePriority", "PatientID", *ACQUISITION_KEYWORDS,
]  # fmt: skip
_WANTED_TAG: Final = {keyword: Tag(keyword) for keyword in _WANTED}
_WANTED_TAGS: Final[list[BaseTag | int]] = list(_WANTED_TAG.values())
_UNPARSABLE: Final = (
    ValueError, TypeError, KeyError, AttributeError, IndexError, NotImplementedError, EOFError, OSError,
    OverflowError, RecursionError, LookupError, struct.error, zlib.error, BytesLengthException,
)  # fmt: skip


class RefusedDataSet(Exception):
    """The object must not be answered with success.

    Attributes:
        status: the C-STORE status to answer.
        why: what is wrong, without values from the data set.
    """

    def __init__(self, status: int, why: str) -> None:
        self.status = status
        self.why = why
        super().__init__(why)


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
    syntax = UID(transfer_syntax_uid)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # pydicom's texts quote values
            header, pixels = _read_header(encoded, syntax)
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


def _read_header(encoded: bytes | memoryview, syntax: UID) -> tuple[Dataset, _PixelElement | None]:
    end, total = _IMPLICIT_END if syntax.is_implicit_VR else _EXPLICIT_END, len(encoded)
    buffer = BytesIO(b"".join((encoded, end)))
    pixels: list[_PixelElement] = []
    ends: list[int] = []

    def stop_at_pixels_or_end(tag: BaseTag, vr: str | None, length: int) -> bool:
        start = buffer.tell()
        if tag == _END_TAG:
            ends.append(start - len(end))
        elif length != _UNDEFINED_LENGTH and start + length > total:
            raise RefusedDataSet(statuses.CANNOT_UNDERSTAND, "the data set ends inside an element")
        elif tag in _PIXEL_TAGS:
            pixels.append(_PixelElement(vr, length, start))
        return bool(ends or pixels)

    def read_from(position: int, wanted: list[BaseTag | int]) -> Dataset:
        buffer.seek(position)
        return read_dataset(
            buffer,
            syntax.is_implicit_VR,
            syntax.is_little_endian,
            stop_when=stop_at_pixels_or_end,
            specific_tags=wanted,
        )

    header = read_from(0, _WANTED_TAGS)
    found = pixels[0] if pixels else None
    while pixels:  # what follows them, too
        read_from(_end_of(pixels.pop(), encoded), [])
    if ends != [total]:
        raise RefusedDataSet(statuses.CANNOT_UNDERSTAND, "the data set ends inside an element")
    return header, found


def _end_of(pixels: _PixelElement, encoded: bytes | memoryview) -> int:
    if pixels.length == _UNDEFINED_LENGTH:
        return _walk_fragments(encoded, pixels.start)
    return pixels.start + pixels.length


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
    return value.decode("ascii", "replace").strip(" \0") if isinstance(value, bytes) else ""


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
    return tuple(f"{keyword} is no valid UID (PS3.5 9.1)" for keyword, uid in pairs if not UID(uid).is_valid)


def _check_pixels(header: Dataset, pixels: _PixelElement | None, syntax: UID) -> tuple[str, ...]:
    if pixels is None:
        promised = header.get("Rows") or str(header.get("SOPClassUID")) in ANALYSED_SOP_CLASSES
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
        value: Any = header.get(keyword)
        return int(value) if value not in (None, "") else default

    samples = number("SamplesPerPixel", 1)
    if header.get("PhotometricInterpretation") == "YBR_FULL_422":
        samples = 2
    values = number("Rows", 0) * number("Columns", 0) * samples * number("NumberOfFrames", 1)
    return math.ceil(values * number("BitsAllocated", 0) / 8)


def _walk_fragments(encoded: bytes | memoryview, position: int) -> int:
    """Follow encapsulated fragments to the sequence delimiter (PS3.5 A.4); return where it ends."""
    total = len(encoded)
    while position + 8 <= total:
        tag = bytes(encoded[position : position + 4])
        (length,) = struct.unpack_from("<I", encoded, position + 4)
        position += 8
        if tag == _SEQUENCE_END:
            return position
        if tag != _ITEM or length == _UNDEFINED_LENGTH:
            raise RefusedDataSet(statuses.CANNOT_UNDERSTAND, "the compressed pixel data are damaged")
        position += length
    raise RefusedDataSet(statuses.CANNOT_UNDERSTAND, "the compressed pixel data end before their delimiter")
