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
from pathlib import Path
from typing import Final

from pydicom import dcmread
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset
from pydicom.uid import CTImageStorage, DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian, generate_uid

from benchmarks.processes import MEBIBYTE, MemoryWatch
from benchmarks.raw_sender import NotAccepted, RawSender
from benchmarks.receive import Receiving
from benchmarks.tables import MISSED, print_table
from ich_node.phantom import PhantomSettings, write_series
from tests.corruption import KINDS as DAMAGES
from tests.corruption import corrupted
from tests.ct_series import ct_slice
from tests.hostile_objects import STRUCTURES, named_elsewhere

OBJECTS: Final = 10
"""Of each kind, each in an association of its own."""
_TIMEOUT_S: Final = 5.0
_FRAGMENT: Final = 16_000
"""Below the longest PDU that any of the receivers names."""
_PIXEL_DATA: Final = struct.pack("<HH2s", 0x7FE0, 0x0010, b"OW")
_BOMB_BYTES: Final = 512 * MEBIBYTE
_SUCCESS: Final = "0x0000"
_OF_EACH_DAMAGE: Final = 2
_NAMES: Final = 25
_LONG_TIMEOUT_S: Final = 30.0
"""For an object of many megabytes."""
_UID: Final = str(ct_slice(1).SOPInstanceUID)
_NOT_ACCEPTED: Final = "not accepted"
_WHOLE: Final = "whole, to compare"
_DEFLATED: Final = f"deflated, {_BOMB_BYTES // MEBIBYTE} MiB"


@dataclass(frozen=True, slots=True)
class _Image:
    """A CT image as it goes over the network, in two parts."""

    uid: str
    before: bytes
    pixels: bytes


@dataclass(frozen=True, slots=True)
class _Hostile:
    """A data set, and under which UID and in which transfer syntax it is sent."""

    content: bytes
    uid: str
    syntax: str = ExplicitVRLittleEndian


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
    _WHOLE: _whole,
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
                rows.append(_row(receiver, _DEFLATED, answers, watch.peak_mib()))
                for kind, objects in _hostile():
                    answers = [_send(receiving.port, one.uid, one.content, one.syntax) for one in objects]
                    rows.append(_row(receiver, kind, answers, watch.peak_mib()))
    head = ("Receiver", "Object", "Sent", "Success", "Other answers", "Peak MiB")
    return print_table("Damaged and hostile objects, each in an association of its own", head, rows)


def _row(receiver: str, kind: str, answers: list[str], peak_mib: float) -> tuple[object, ...]:
    success = answers.count(_SUCCESS)
    missed = receiver == "ich-node" and not all(is_right(kind, answer) for answer in answers)
    others = ", ".join(
        f"{answer} ({number})" for answer, number in Counter(answers).most_common() if answer != _SUCCESS
    )
    return receiver, kind, len(answers), f"{success} {MISSED}" if missed else success, others, f"{peak_mib:.0f}"


def is_right(kind: str, answer: str) -> bool:
    """Tell whether an answer is what an object of this kind must get: nothing that did not come is a refusal."""
    if kind == _WHOLE:
        return answer == _SUCCESS
    if kind == _DEFLATED:
        return answer == _NOT_ACCEPTED
    if kind in KINDS:
        return answer.startswith("0x") and answer != _SUCCESS
    return answer != _SUCCESS and not answer.startswith("no answer")


def _hostile() -> Iterator[tuple[str, list[_Hostile]]]:
    """The objects of tests/integration/test_hostile_objects.py, that no receiver should keep."""
    damaged = [
        _Hostile(one.content, _UID, one.syntax) for one in corrupted(seed=1, count=_OF_EACH_DAMAGE * len(DAMAGES))
    ]
    yield f"damaged in {len(DAMAGES)} ways", damaged
    names = [_Hostile(content, uid.decode(errors="surrogateescape")) for _, _, content, uid in named_elsewhere(_NAMES)]
    yield "a name that leads elsewhere", names
    for what, make in STRUCTURES.items():
        yield what, [_Hostile(make(), _UID)]


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
    pieces += [deflate.compress(bytes(MEBIBYTE)) for _ in range(_BOMB_BYTES // MEBIBYTE)]
    return b"".join([*pieces, deflate.flush()])


def _send(port: int, uid: str, encoded: bytes, syntax: str = ExplicitVRLittleEndian) -> str:
    """Send bytes as they are; give the status, or what happened instead."""
    timeout_s = _LONG_TIMEOUT_S if len(encoded) > MEBIBYTE else _TIMEOUT_S
    try:
        with RawSender(port, CTImageStorage, syntax, timeout_s, _FRAGMENT) as sender:
            return f"0x{sender.store(uid, encoded):04X}"
    except NotAccepted:
        return _NOT_ACCEPTED
    except TimeoutError:
        return f"no answer in {timeout_s:g} s"
    except OSError:
        return "association ended"
