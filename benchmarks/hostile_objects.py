"""Objects that are damaged or made to fill the memory: which receivers answer Success for them, and what it costs."""

from __future__ import annotations

import shutil
import struct
import tempfile
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Final

from pydicom import dcmread
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset
from pydicom.uid import UID, DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian, generate_uid
from pynetdicom import AE
from pynetdicom.association import Association
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.sop_class import CTImageStorage  # type: ignore[attr-defined]  # made at run time

from benchmarks.processes import MemoryWatch
from benchmarks.receive import Receiving
from benchmarks.tables import MISSED, print_table
from ich_node.phantom import PhantomSettings, write_series

OBJECTS: Final = 10
"""Of each kind, each in an association of its own."""
_TIMEOUT_S: Final = 5.0
_PIXEL_DATA: Final = struct.pack("<HH2s", 0x7FE0, 0x0010, b"OW")
_MEBIBYTE: Final = 1024 * 1024
_BOMB_BYTES: Final = 512 * _MEBIBYTE
_NOT_ACCEPTED: Final = "not accepted"


@dataclass(frozen=True, slots=True)
class _Image:
    """A CT image as it goes over the network, in two parts."""

    uid: str
    before: bytes
    pixels: bytes


def _whole(image: _Image, _: int) -> bytes:
    return image.before + _pixel_element(len(image.pixels)) + image.pixels


def _cut_in_its_pixels(image: _Image, number: int) -> bytes:
    """End where the connection of a sender might have ended: 1 byte, 2 bytes, ... half of it missing."""
    missing = min(len(image.pixels) // 2, 2**number)
    return image.before + _pixel_element(len(image.pixels)) + image.pixels[:-missing]


def _too_few_pixels(image: _Image, number: int) -> bytes:
    """Whole as an encoding, with fewer pixels than Rows and Columns say."""
    pixels = image.pixels[: -min(len(image.pixels) // 2, 2 ** (number + 1))]
    return image.before + _pixel_element(len(pixels)) + pixels


def _pixel_element(length: int) -> bytes:
    return _PIXEL_DATA + struct.pack("<HL", 0, length)


KINDS: Final[dict[str, Callable[[_Image, int], bytes]]] = {
    "whole, to compare": _whole,
    "cut short in its pixels": _cut_in_its_pixels,
    "fewer pixels than announced": _too_few_pixels,
}


def measure(receivers: dict[str, Callable[[Path], Iterator[Receiving]]]) -> int:
    """Send every kind to every receiver and print the table; give the number of targets that were missed."""
    rows: list[tuple[object, ...]] = []
    with tempfile.TemporaryDirectory(prefix="ich-node-bench-") as name:
        for receiver, start in receivers.items():
            shutil.rmtree(folder := Path(name) / "run", ignore_errors=True)
            folder.mkdir()
            with contextmanager(start)(folder) as receiving, MemoryWatch(receiving.pid) as watch:
                for kind, make in KINDS.items():
                    sent = [(image.uid, make(image, one)) for one, image in enumerate(_images(folder))]
                    answers = [_send(receiving.port, uid, encoded) for uid, encoded in sent]
                    rows.append(_row(receiver, kind, answers, watch.peak_mib()))
                image = next(_images(folder))
                answers = [_send(receiving.port, image.uid, _bomb(image), DeflatedExplicitVRLittleEndian)]
                time.sleep(1.0)
                rows.append(_row(receiver, f"deflated, {_BOMB_BYTES // _MEBIBYTE} MiB", answers, watch.peak_mib()))
    head = ("Receiver", "Object", "Sent", "Success", "Other answers", "Peak MiB")
    return print_table(f"Damaged objects, {OBJECTS} of each kind, each in an association of its own", head, rows)


def _row(receiver: str, kind: str, answers: list[str], peak_mib: float) -> tuple[object, ...]:
    counted = Counter(answers)
    success = counted.pop("0x0000", 0)
    marked = f"{success} {MISSED}" if success and not kind.startswith("whole") and receiver == "ich-node" else success
    others = ", ".join(f"{answer} ({number})" for answer, number in counted.most_common())
    return receiver, kind, len(answers), marked, others, f"{peak_mib:.0f}"


def _images(folder: Path) -> Iterator[_Image]:
    (path,) = write_series(folder / "template", PhantomSettings(slices=1))
    template = dcmread(path)
    shutil.rmtree(folder / "template")
    pixels = bytes(template.PixelData)
    del template.PixelData
    for _ in range(OBJECTS):
        template.SOPInstanceUID = generate_uid()
        buffer = DicomBytesIO()
        buffer.is_little_endian, buffer.is_implicit_VR = True, False
        write_dataset(buffer, template)
        yield _Image(str(template.SOPInstanceUID), buffer.getvalue(), pixels)


def _bomb(image: _Image) -> bytes:
    """Deflate an image whose pixels are zeros without end (PS3.5 A.5)."""
    deflate = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    pieces = [deflate.compress(image.before + _pixel_element(_BOMB_BYTES))]
    pieces += [deflate.compress(bytes(_MEBIBYTE)) for _ in range(_BOMB_BYTES // _MEBIBYTE)]
    return b"".join([*pieces, deflate.flush()])


def _send(port: int, uid: str, encoded: bytes, syntax: str = ExplicitVRLittleEndian) -> str:
    """Send bytes as they are; give the status, or what happened instead."""
    entity = AE("SCANNER1")
    entity.acse_timeout = entity.dimse_timeout = entity.network_timeout = _TIMEOUT_S
    entity.add_requested_context(CTImageStorage, syntax)
    association = entity.associate("127.0.0.1", port, ae_title="ICH_NODE")
    if not association.is_established:
        return _NOT_ACCEPTED
    answer = _store(association, uid, encoded)
    if answer is None:
        ended = not association.is_established
        association.abort()
        return "association ended" if ended else f"no answer in {_TIMEOUT_S:g} s"
    association.release()
    return answer


def _store(association: Association, uid: str, encoded: bytes) -> str | None:
    request = C_STORE()
    request.MessageID, request.Priority = 1, 2
    request.AffectedSOPClassUID, request.AffectedSOPInstanceUID = CTImageStorage, UID(uid)
    request.DataSet = BytesIO(encoded)
    association._reactor_checkpoint.clear()
    while association.is_established and not association._is_paused:  # or its own loop takes the response
        time.sleep(0.001)
    try:
        association.dimse.send_msg(request, association.accepted_contexts[0].context_id)
        _, response = association.dimse.get_msg(block=True)
    finally:
        association._reactor_checkpoint.set()
    return None if response is None else f"0x{response.Status:04X}"
