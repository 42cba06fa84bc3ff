"""Images made to crash, to fill the memory or to escape: each costs itself, and nothing else."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
import zlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from pydicom import Dataset, dcmread
from pydicom.encaps import encapsulate
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

from ich_node.decode import DecoderPool
from ich_node.records import InstanceState, NotAnalysedReason
from tests.ct_series import as_file, ct_slice
from tests.misbehaving import BURNS, CRASHES, LIMITS, REPORTS, WRITES, act_by_number
from tests.running import wait_for

LONGEST_CPU_S = 5.0
"""Of a child for one bomb, and of this process, which waits."""


@pytest.fixture(scope="module")
def pool() -> Iterator[DecoderPool]:
    with DecoderPool(LIMITS, act_by_number) as pool:
        yield pool


def file_of(folder: Path, syntax: str, frames: list[bytes], number: int = 1, **changes: object) -> Path:
    """A CT image with these compressed frames."""
    ds = dcmread_bytes(as_file(ct_slice(number, **changes)))
    ds.file_meta.TransferSyntaxUID = syntax
    ds.PixelData = encapsulate(frames)
    ds["PixelData"].VR, ds["PixelData"].is_undefined_length = "OB", True
    path = folder / "hostile.dcm"
    ds.save_as(path, implicit_vr=False, little_endian=True)
    return path


def dcmread_bytes(content: bytes) -> Dataset:
    from io import BytesIO

    return dcmread(BytesIO(content))


def good(folder: Path, number: int = 1) -> Path:
    path = folder / f"good{number}.dcm"
    path.write_bytes(as_file(ct_slice(number)))
    return path


def jpeg_2000(rows: int, columns: int) -> bytes:
    """The main header of a codestream (ISO 15444-1 A.5.1) and nothing of the image."""
    size = struct.pack(">HHIIIIIIIIHBBB", 41, 0, columns, rows, 0, 0, columns, rows, 0, 0, 1, 15, 1, 1)
    return b"\xff\x4f\xff\x51" + size + b"\xff\xd9"


def jpeg(rows: int, columns: int, marker: int) -> bytes:
    frame = struct.pack(">HBHHBBBB", 11, 16, rows, columns, 1, 1, 0x11, 0)
    return b"\xff\xd8" + bytes([0xFF, marker]) + frame + b"\xff\xd9"


def rle(runs: int) -> bytes:
    """Two segments (PS3.5 G.5) whose runs of two bytes each become 128."""
    segment = b"\x81\x00" * runs
    return struct.pack("<16I", 2, 64, 64 + len(segment), *[0] * 13) + segment * 2


LARGE = 65535
SIZES_DIFFER = "16 x 16 in the header, 65535 x 65535 in the image"
DAMAGED, TOO_LARGE = NotAnalysedReason.CANNOT_DECODE, NotAnalysedReason.TOO_LARGE
BOMBS = {
    "JPEG 2000 of 65535 x 65535": (JPEG2000Lossless, jpeg_2000(LARGE, LARGE), {}, DAMAGED, SIZES_DIFFER),
    "JPEG of 65535 x 65535": (JPEGLosslessSV1, jpeg(LARGE, LARGE, 0xC3), {}, DAMAGED, SIZES_DIFFER),
    "JPEG-LS of 65535 x 65535": (JPEGLSLossless, jpeg(LARGE, LARGE, 0xF7), {}, DAMAGED, SIZES_DIFFER),
    "RLE that runs over": (RLELossless, rle(4_000_000), {}, DAMAGED, "more runs than the image has room for"),
    "RLE that points outside": (RLELossless, struct.pack("<16I", 15, *[0xFFFFFFF0] * 15), {}, DAMAGED, "RuntimeError"),
    "100,000 frames": (
        JPEG2000Lossless, jpeg_2000(16, 16), {"NumberOfFrames": "100000"}, TOO_LARGE, "100000 frames"),
    "65535 x 65535 in the header": (
        JPEG2000Lossless, jpeg_2000(LARGE, LARGE), {"Rows": LARGE, "Columns": LARGE}, TOO_LARGE,
        "1 frames of 65535 x 65535"),
    "no codestream": (JPEG2000Lossless, b"\0" * 100, {}, DAMAGED, "the compressed image ends early"),
    "a codestream that begins and ends": (
        JPEG2000Lossless, b"\xff\x4f", {}, DAMAGED, "the compressed image ends early"),
    "a codestream of nothing": (JPEG2000Lossless, jpeg_2000(16, 16), {}, DAMAGED, "RuntimeError"),
}  # fmt: skip


def cpu_s() -> tuple[float, float]:
    """What this process has used, and its children that live."""
    own, *children = (one.cpu_times() for one in (psutil.Process(), *psutil.Process().children(recursive=True)))
    return own.user + own.system, sum(one.user + one.system for one in children)


@pytest.mark.parametrize("bomb", BOMBS)
def test_a_bomb_is_refused_and_the_next_image_is_decoded(pool: DecoderPool, tmp_path: Path, bomb: str) -> None:
    syntax, frame, changes, reason, detail = BOMBS[bomb]
    path = file_of(tmp_path, syntax, [frame], **changes)
    assert pool.submit(good(tmp_path)).result().state is InstanceState.DECODED
    before = cpu_s()
    decoded = pool.submit(path).result()
    own_s, child_s = (after - began for began, after in zip(before, cpu_s(), strict=True))

    assert (decoded.state, decoded.reason, decoded.detail) == (InstanceState.UNREADABLE, reason, detail)
    assert own_s < LONGEST_CPU_S, "the worker itself does none of the work"
    assert 0.0 <= child_s < LONGEST_CPU_S, "the child that began it has ended it"
    assert pool.submit(good(tmp_path)).result().state is InstanceState.DECODED


@pytest.mark.parametrize("levels", [300, 3000])
def test_sequences_of_3000_levels_are_unreadable(pool: DecoderPool, tmp_path: Path, levels: int) -> None:
    sequence = b"\x40\x00\x75\x02SQ\0\0\xff\xff\xff\xff\xfe\xff\x00\xe0\xff\xff\xff\xff"
    ends = b"\xfe\xff\x0d\xe0\0\0\0\0\xfe\xff\xdd\xe0\0\0\0\0"
    content = as_file(ct_slice(1))
    at = content.index(b"\xe0\x7f\x10\x00OW")
    path = tmp_path / "deep.dcm"
    path.write_bytes(content[:at] + sequence * levels + ends * levels + content[at:])
    assert pool.submit(path).result().state is InstanceState.UNREADABLE
    assert pool.submit(good(tmp_path)).result().state is InstanceState.DECODED


def test_a_deflated_bomb_is_refused_before_it_is_inflated(pool: DecoderPool, tmp_path: Path) -> None:
    content = as_file(ct_slice(1))
    meta = content[: 144 + struct.unpack_from("<I", content, 140)[0]]
    squeezer = zlib.compressobj(9, zlib.DEFLATED, -15)
    data = squeezer.compress(content[len(meta) :])
    for _ in range(320):
        data += squeezer.compress(bytes(1024 * 1024))
    meta = meta.replace(ExplicitVRLittleEndian.encode() + b"\0", DeflatedExplicitVRLittleEndian.encode())
    grown = len(DeflatedExplicitVRLittleEndian) - len(ExplicitVRLittleEndian) - 1
    length_at = meta.index(DeflatedExplicitVRLittleEndian.encode()) - 2
    meta = meta[:length_at] + struct.pack("<H", len(DeflatedExplicitVRLittleEndian)) + meta[length_at + 2 :]
    meta = meta[:140] + struct.pack("<I", len(meta) - 144) + meta[144:]
    path = tmp_path / "deflated.dcm"
    path.write_bytes(meta + data + squeezer.flush())
    assert grown, "the UIDs differ in length"
    assert path.stat().st_size < 1024 * 1024
    decoded = pool.submit(path).result()
    assert (decoded.state, decoded.reason) == (InstanceState.UNREADABLE, NotAnalysedReason.TOO_LARGE)


def test_a_child_that_decodes_has_no_more_rights_than_it_needs(pool: DecoderPool, tmp_path: Path) -> None:
    task = pool.submit(good(tmp_path, REPORTS))
    with pytest.raises(ValueError, match="no-new-privs CORE FSIZE NOFILE AS CPU no-sockets"):
        task.result()


def test_a_child_that_decodes_can_write_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "written"
    monkeypatch.setenv("WHERE_TO_WRITE", str(target))
    with DecoderPool(LIMITS, act_by_number) as pool, pytest.raises(OSError, match="File too large"):
        pool.submit(good(tmp_path, WRITES)).result()
    assert not target.exists() or target.stat().st_size == 0


def test_a_crash_of_a_codec_costs_one_image(pool: DecoderPool, tmp_path: Path) -> None:
    decoded = [pool.submit(good(tmp_path, number)) for number in (1, CRASHES, 2)]
    assert [one.result().reason for one in decoded] == [None, NotAnalysedReason.DECODE_CRASHED, None]


@pytest.mark.slow
def test_a_child_that_computes_on_and_on_is_ended(tmp_path: Path) -> None:
    with DecoderPool(replace(LIMITS, seconds_per_object=2.0), act_by_number) as pool:
        burning = pool.submit(good(tmp_path, BURNS))
        assert burning.result().reason is NotAnalysedReason.DECODE_TIMEOUT
        assert pool.submit(good(tmp_path)).result().state is InstanceState.DECODED


def test_children_end_with_a_worker_that_is_killed(tmp_path: Path) -> None:
    program = (
        "import sys, time\n"
        "from ich_node.decode import DecodeLimits, DecoderPool\n"
        "from ich_node.eligibility import slice_ineligibility\n"
        "if __name__ == '__main__':\n"
        "    pool = DecoderPool(DecodeLimits(), slice_ineligibility).__enter__()\n"
        f"    pool.submit(__import__('pathlib').Path({str(good(tmp_path))!r})).result()\n"
        "    print('ready', flush=True)\n"
        "    time.sleep(300)\n"
    )
    script = tmp_path / "worker.py"
    script.write_text(program)
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    worker = subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, env=environment)
    assert worker.stdout is not None
    try:
        assert worker.stdout.readline() == b"ready\n"
        children = psutil.Process(worker.pid).children(recursive=True)
        assert children
    finally:
        worker.kill()
        worker.wait()
        worker.stdout.close()
    wait_for(lambda: not any(one.is_running() and one.status() != "zombie" for one in children), "they end", 30)
