"""Open a DICOM file without trusting it."""

import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from pydicom import Dataset, dcmread
from pydicom.errors import BytesLengthException, InvalidDicomError
from pydicom.filereader import read_file_meta_info
from pydicom.uid import DeflatedExplicitVRLittleEndian

from ich_node.decode.limits import DecodeLimits
from ich_node.errors import Unreadable
from ich_node.records import NotAnalysedReason

# What pydicom, NumPy and the codecs raise for bad bytes. Named one by one, so that a fault of our own is not hidden.
_DAMAGED = (
    InvalidDicomError,
    BytesLengthException,
    ArithmeticError,
    AttributeError,
    EOFError,
    LookupError,
    NotImplementedError,
    OSError,
    RecursionError,
    RuntimeError,
    TypeError,
    ValueError,
    struct.error,
    zlib.error,
)
_RAW_DEFLATE = -15
_PREAMBLE_BYTES = 132
_GROUP_LENGTH_BYTES = 12


@contextmanager
def damage_means(reason: NotAnalysedReason) -> Iterator[None]:
    """Turn what bad bytes raise into `Unreadable`, and keep warnings, which quote header values, off every log.

    Raises:
        Unreadable: with ``reason``, or FILE_GONE, or TOO_LARGE where memory ran out.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            yield
        except FileNotFoundError as error:
            raise Unreadable(NotAnalysedReason.FILE_GONE) from error
        except MemoryError as error:
            raise Unreadable(NotAnalysedReason.TOO_LARGE, "out of memory") from error
        except _DAMAGED as error:
            raise Unreadable(reason, type(error).__name__) from error


def read_header(path: Path, limits: DecodeLimits, file: BinaryIO | None = None) -> Dataset:
    """Read everything before PixelData, from ``file`` where it is open already.

    Raises:
        Unreadable: NOT_DICOM, or TOO_LARGE for a deflated data set that inflates beyond the limit.
    """
    with damage_means(NotAnalysedReason.NOT_DICOM):
        _check_inflated_size(path, limits.max_inflated_bytes)
        header = dcmread(path if file is None else file, stop_before_pixels=True)
        if "SOPInstanceUID" not in header or "SOPClassUID" not in header:
            raise Unreadable(NotAnalysedReason.NOT_DICOM, "no SOP Instance UID or SOP Class UID")
        return header


def read_dataset(path: Path) -> Dataset:
    """Read the whole file, for one whose header was found acceptable.

    Raises:
        Unreadable: NOT_DICOM.
    """
    with damage_means(NotAnalysedReason.NOT_DICOM):
        return dcmread(path)


def _check_inflated_size(path: Path, max_bytes: int) -> None:
    """Inflate a deflated data set (PS3.5 A.5) into a bounded buffer first: pydicom inflates without a limit."""
    meta = read_file_meta_info(path)
    if meta.get("TransferSyntaxUID") != DeflatedExplicitVRLittleEndian:
        return
    start = _PREAMBLE_BYTES + _GROUP_LENGTH_BYTES + int(meta.FileMetaInformationGroupLength)
    inflater = zlib.decompressobj(_RAW_DEFLATE)
    inflated = inflater.decompress(path.read_bytes()[start:], max_bytes + 1)
    if len(inflated) > max_bytes:
        raise Unreadable(NotAnalysedReason.TOO_LARGE, f"inflates beyond {max_bytes} bytes")
    if not inflater.eof:
        raise EOFError("the deflated data set ends early")
