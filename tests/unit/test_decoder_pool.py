import os
import signal
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

from ich_node import service
from ich_node.decode import DecodeLimits, DecoderPool
from ich_node.decode import pool as decoding
from ich_node.records import InstanceState, NotAnalysedReason, SliceFacts
from ich_node.service import MemoryGivenBack

LIMITS = DecodeLimits()
DEADLY, WITH_TORCH = 13, 14


def decline_by_number(facts: SliceFacts) -> NotAnalysedReason | None:
    """Runs in the child: instance 13 kills it, as a codec with a fault would; 14 reports whether torch is there."""
    if facts.instance_number == DEADLY:
        os.kill(os.getpid(), signal.SIGKILL)
    if facts.instance_number == WITH_TORCH:
        return NotAnalysedReason.NOT_CT if "torch" in sys.modules else NotAnalysedReason.NOT_HEAD
    return None


@pytest.fixture(scope="module")
def pool():
    with DecoderPool(LIMITS, decline_by_number) as pool:
        yield pool


def ct_file(folder: Path, instance_number: int, rows: int = 64, frames: int = 1) -> Path:
    dataset = Dataset()
    dataset.SOPClassUID = "1.2.840.10008.5.1.4.1.1.2"
    dataset.SOPInstanceUID = generate_uid()
    dataset.Modality = "CT"
    dataset.InstanceNumber = instance_number
    dataset.Rows, dataset.Columns = rows, rows
    dataset.NumberOfFrames = frames
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 16, 15, 1
    dataset.PixelData = np.full((64, 64), 40, "<i2").tobytes()
    dataset["PixelData"].VR = "OW"
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    path = folder / f"{dataset.SOPInstanceUID}.dcm"
    dataset.save_as(path, enforce_file_format=True)
    return path


def grow_pixel_data(path: Path, pixel_bytes: int) -> None:
    """Announce more pixel data and provide it as a hole, which takes no room on the disk."""
    content = path.read_bytes()
    at = content.index(b"\xe0\x7f\x10\x00OW\x00\x00") + 8
    with path.open("r+b") as file:
        file.seek(at)
        file.write(pixel_bytes.to_bytes(4, "little"))
        file.truncate(at + 4 + pixel_bytes)


def test_a_child_decodes_and_gives_back_slices(pool, tmp_path):
    decoded = pool.submit(ct_file(tmp_path, 1)).result()

    assert decoded.state is InstanceState.DECODED
    np.testing.assert_array_equal(decoded.slices[0].hu, np.full((64, 64), 40.0, np.float32))


def test_a_child_holds_no_torch(pool, tmp_path):
    assert pool.submit(ct_file(tmp_path, WITH_TORCH)).result().reason is NotAnalysedReason.NOT_HEAD


def test_a_crash_costs_one_object_and_the_pool_goes_on(pool, tmp_path):
    numbers = [1, 2, DEADLY, 3, 4]

    tasks = [pool.submit(ct_file(tmp_path, number)) for number in numbers]
    decoded = [task.result() for task in tasks]

    states = [one.state for one in decoded]
    assert states == [InstanceState.UNREADABLE if number == DEADLY else InstanceState.DECODED for number in numbers]
    assert decoded[2].reason is NotAnalysedReason.DECODE_CRASHED
    assert [one.instance_number for one in decoded[2].facts] == [DEADLY], "the header is still read"


def test_a_damaged_file_is_an_answer_and_not_a_crash(pool, tmp_path):
    path = tmp_path / "broken"
    path.write_bytes(b"DICM")

    decoded = pool.submit(path).result()

    assert (decoded.state, decoded.reason) == (InstanceState.UNREADABLE, NotAnalysedReason.NOT_DICOM)


def test_a_header_of_65535_rows_and_columns_is_refused(pool, tmp_path):
    decoded = pool.submit(ct_file(tmp_path, 1, rows=65535)).result()

    assert (decoded.state, decoded.reason) == (InstanceState.UNREADABLE, NotAnalysedReason.TOO_LARGE)


def test_a_decode_that_hangs_is_ended_and_the_pool_goes_on(tmp_path):
    hangs = tmp_path / "a pipe that nobody writes to"
    os.mkfifo(hangs)

    with DecoderPool(replace(LIMITS, seconds_per_object=2.0), decline_by_number) as pool:
        stuck, good = pool.submit(hangs), pool.submit(ct_file(tmp_path, 1))

        assert stuck.result().reason is NotAnalysedReason.DECODE_TIMEOUT
        assert good.result().state is InstanceState.DECODED


def test_memory_of_a_child_is_limited(tmp_path):
    large = ct_file(tmp_path, 1, rows=16384)
    grow_pixel_data(large, 16384 * 16384 * 2)

    limits = replace(LIMITS, max_rows=16384, max_columns=16384, address_space_bytes=700 * 1024**2)
    with DecoderPool(limits, decline_by_number) as pool:
        too_large, good = pool.submit(large), pool.submit(ct_file(tmp_path, 1))

        assert too_large.result().reason is NotAnalysedReason.TOO_LARGE
        assert good.result().state is InstanceState.DECODED


def test_a_codestream_that_makes_the_real_codec_abort_costs_one_object(pool, shared_data, tmp_path):
    intact = shared_data / "transfer-syntaxes" / "misc" / "pydicomdata__bad_sequence.dcm"
    content = bytearray(intact.read_bytes())
    # A Huffman table with 255 codes of one length: GDCM 3.2 throws a C++ exception that nobody catches.
    content[content.index(b"\xff\xd8\xff") + 34] = 255
    deadly = tmp_path / "deadly.dcm"
    deadly.write_bytes(content)

    refused, decoded = pool.submit(deadly), pool.submit(intact)

    assert refused.result().state is InstanceState.UNREADABLE
    assert refused.result().reason in (NotAnalysedReason.DECODE_CRASHED, NotAnalysedReason.CANNOT_DECODE)
    assert decoded.result().state is InstanceState.DECODED


def test_a_child_gives_memory_back_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []
    monkeypatch.setattr(decoding, "limit_cpu_time", lambda _: None)  # this process is no child
    monkeypatch.setattr(decoding, "_memory", MemoryGivenBack())
    monkeypatch.setattr(service, "give_memory_back", lambda: done.append("given back"))
    for _ in range(3):
        decoding._run(lambda: done.append("task"), 1.0, ())
    assert done == ["given back", *["task"] * 3]
