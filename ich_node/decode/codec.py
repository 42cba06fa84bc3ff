"""Pixel data of any transfer syntax → stored values.

Codecs were chosen by time per 512 x 512 slice and by licence: OpenJPEG for JPEG 2000 and its high-throughput form,
CharLS for JPEG-LS, libjpeg-turbo (of imagecodecs) for lossless JPEG, GDCM for other JPEG, pydicom itself for RLE and
raw pixels.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

import gdcm
import imagecodecs
from numpy.typing import NDArray
from openjpeg.utils import decode_pixel_data
from pydicom import Dataset, uid
from pydicom.encaps import generate_frames
from pydicom.pixels.decoders.base import Decoder, DecodeRunner, get_decoder
from pydicom.pixels.utils import get_j2k_parameters

from ich_node.decode.header import frame_count
from ich_node.errors import Unreadable
from ich_node.records import NotAnalysedReason

_JPEG: Final = (uid.JPEGBaseline8Bit, uid.JPEGExtended12Bit, uid.JPEGLossless, uid.JPEGLosslessSV1)
_JPEG_LOSSLESS: Final = (uid.JPEGLossless, uid.JPEGLosslessSV1)
_JPEG_LS: Final = (uid.JPEGLSLossless, uid.JPEGLSNearLossless)
_JPEG_2000: Final = (uid.JPEG2000Lossless, uid.JPEG2000, uid.HTJ2KLossless, uid.HTJ2KLosslessRPCL, uid.HTJ2K)
_SIGN_REPAIR: Final = "JPEG 2000 sign"
_END_OF_IMAGE: Final = b"\xff\xd9"  # EOI of JPEG and JPEG-LS, EOC of JPEG 2000
_RLE_HEADER_BYTES: Final = 64 + 16  # and the padding of its segments (PS3.5 G.5)
_RLE_MOST_FOR_A_PIXEL_BYTE: Final = 2  # a run of one byte (PS3.5 G.3.1)
_START_OF_FRAME: Final = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC} | {0xF7}


@dataclass(frozen=True, slots=True)
class CodestreamHeader:
    """What a compressed frame says of itself."""

    rows: int
    columns: int
    components: int


def stored_values(dataset: Dataset, frames: Iterable[int]) -> Iterator[NDArray[Any]]:
    """Yield the stored values (rows, columns) of the frames asked for, counted from 0.

    Raises:
        Unreadable: the codestream announces another size than the header.
        ValueError: and whatever else codecs raise for bad bytes, such as pixel data that is too short.
    """
    transfer_syntax = dataset.file_meta.TransferSyntaxUID
    if transfer_syntax == uid.RLELossless:
        check_runs(dataset)
    elif transfer_syntax.is_encapsulated:
        check_codestreams(dataset)
    decoder, plugin = _choose_decoder(transfer_syntax)
    for index in frames:
        values, _ = decoder.as_array(dataset, index=index, decoding_plugin=plugin, raw=True)
        yield values


def repair_jpeg_2000_sign(dataset: Dataset) -> tuple[str, ...]:
    """Let the codestream say whether samples are signed, where PixelRepresentation says otherwise.

    A signed codestream is believed here. An unsigned one that the header calls signed holds two's complement, which
    pydicom puts right while decoding. Returns the names of the repairs.
    """
    if dataset.file_meta.TransferSyntaxUID not in _JPEG_2000:
        return ()
    first = next(generate_frames(dataset.PixelData, number_of_frames=frame_count(dataset)))
    signed = get_j2k_parameters(first).get("is_signed", bool(dataset.PixelRepresentation))
    if signed == bool(dataset.PixelRepresentation):
        return ()
    if signed:
        dataset.PixelRepresentation = 1
    return (_SIGN_REPAIR,)


def check_codestreams(dataset: Dataset) -> None:
    """Refuse frames that are cut off or whose own size is not the header's: codecs fill in, or allocate what they say.

    Raises:
        Unreadable: with CANNOT_DECODE or TOO_LARGE.
    """
    rows, columns = int(dataset.Rows), int(dataset.Columns)
    for codestream in generate_frames(dataset.PixelData, number_of_frames=frame_count(dataset)):
        if _END_OF_IMAGE not in codestream.rstrip(b"\x00")[-4:]:
            raise Unreadable(NotAnalysedReason.CANNOT_DECODE, "the compressed image ends early")
        header = codestream_header(codestream)
        if header != CodestreamHeader(rows, columns, 1):
            reason = NotAnalysedReason.CANNOT_DECODE
            raise Unreadable(reason, f"{rows} x {columns} in the header, {header.rows} x {header.columns} in the image")


def check_runs(dataset: Dataset) -> None:
    """Refuse RLE frames that are longer than their own pixels could make them: each two bytes may become 128.

    Raises:
        Unreadable: with CANNOT_DECODE.
    """
    pixels = int(dataset.Rows) * int(dataset.Columns) * (int(dataset.BitsAllocated) // 8)
    for frame in generate_frames(dataset.PixelData, number_of_frames=frame_count(dataset)):
        if len(frame) > _RLE_HEADER_BYTES + _RLE_MOST_FOR_A_PIXEL_BYTE * pixels:
            raise Unreadable(NotAnalysedReason.CANNOT_DECODE, "more runs than the image has room for")


def codestream_header(codestream: bytes) -> CodestreamHeader:
    """Read the size from the frame header of JPEG, JPEG-LS (ISO 10918-1 B.2.2) or JPEG 2000 (ISO 15444-1 A.5.1).

    Raises:
        ValueError: it is none of them.
    """
    if codestream.startswith(b"\xff\xd8"):
        return _jpeg_header(codestream)
    start = codestream.find(b"\xff\x4f\xff\x51")
    if start < 0 or len(codestream) < start + 42:
        raise ValueError("no JPEG, JPEG-LS or JPEG 2000 codestream")
    x_size, y_size, x_offset, y_offset = (_big_endian(codestream, start + 8 + 4 * i, 4) for i in range(4))
    return CodestreamHeader(y_size - y_offset, x_size - x_offset, _big_endian(codestream, start + 40, 2))


def _jpeg_header(codestream: bytes) -> CodestreamHeader:
    at = 2
    while at + 10 <= len(codestream):
        marker = codestream[at + 1]
        if codestream[at] != 0xFF:
            break
        if marker == 0xFF:  # a fill byte
            at += 1
        elif marker in _START_OF_FRAME:
            return CodestreamHeader(
                _big_endian(codestream, at + 5, 2), _big_endian(codestream, at + 7, 2), codestream[at + 9]
            )
        else:
            at += 2 + _big_endian(codestream, at + 2, 2)
    raise ValueError("a JPEG codestream without a frame header")


def _big_endian(data: bytes, at: int, length: int) -> int:
    return int.from_bytes(data[at : at + length], "big")


def _choose_decoder(transfer_syntax: uid.UID) -> tuple[Decoder, str]:
    """The decoder for a transfer syntax and the plug-in to use, "" for the only one."""
    if transfer_syntax in _JPEG_2000:
        return _decoder_with(transfer_syntax, "decode_jpeg_2000")
    if transfer_syntax == uid.JPEGExtended12Bit:
        return _decoder_with(transfer_syntax, "decode_jpeg_extended")
    if transfer_syntax in _JPEG_LOSSLESS:
        return _decoder_with(transfer_syntax, "decode_jpeg_lossless")
    if transfer_syntax in _JPEG:
        return get_decoder(transfer_syntax), "gdcm"
    if transfer_syntax in _JPEG_LS:
        return get_decoder(transfer_syntax), "pyjpegls"
    return get_decoder(transfer_syntax), ""


@cache
def _decoder_with(transfer_syntax: uid.UID, function: str) -> tuple[Decoder, str]:
    """A decoder of our own: pydicom's shared ones stay as they are."""
    decoder = Decoder(transfer_syntax)
    decoder.add_plugin("ich_node", (__name__, function))
    return decoder, "ich_node"


# ------------------------------------------------------------------------- called by pydicom as plug-ins


def is_available(transfer_syntax: str) -> bool:
    """Tell pydicom that this plug-in can be used."""
    return transfer_syntax in (*_JPEG_2000, *_JPEG_LOSSLESS, uid.JPEGExtended12Bit)


def decode_jpeg_lossless(codestream: bytes, runner: DecodeRunner) -> bytes:
    """Decode one frame of lossless JPEG (ISO 10918-1 H) with libjpeg-turbo, in half the time that GDCM takes."""
    frame = imagecodecs.jpeg8_decode(codestream)
    runner.set_option("bits_allocated", 8 * frame.dtype.itemsize)
    return bytes(frame.tobytes())


def decode_jpeg_2000(codestream: bytes, runner: DecodeRunner) -> bytes:
    """Decode one JPEG 2000 or HTJ2K frame with OpenJPEG (pydicom asks for another package to do the same)."""
    frame = decode_pixel_data(codestream, version=2)
    precision = runner.get_option("j2k_precision", runner.bits_stored)
    runner.set_option("bits_allocated", 8 if precision <= 8 else 16 if precision <= 16 else 32)
    return bytes(frame)


def decode_jpeg_extended(codestream: bytes, runner: DecodeRunner) -> bytes:
    """Decode one frame of JPEG process 2 and 4 with GDCM, whose 12-bit form pydicom's plug-in refuses."""
    fragment = gdcm.Fragment()
    fragment.SetByteStringValue(codestream)
    fragments = gdcm.SequenceOfFragments.New()
    fragments.AddFragment(fragment)
    pixel_data = gdcm.DataElement(gdcm.Tag(0x7FE0, 0x0010))
    pixel_data.SetValue(fragments.__ref__())
    image = gdcm.Image()
    image.SetNumberOfDimensions(2)
    image.SetDimensions((runner.columns, runner.rows, 1))
    image.SetPhotometricInterpretation(gdcm.PhotometricInterpretation(gdcm.PhotometricInterpretation.MONOCHROME2))
    image.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.JPEGExtendedProcess2_4))
    stored = runner.bits_stored
    image.SetPixelFormat(gdcm.PixelFormat(1, runner.bits_allocated, stored, stored - 1, runner.pixel_representation))
    image.SetDataElement(pixel_data)
    return bytes(image.GetBuffer().encode("utf-8", "surrogateescape"))
