"""The columns of the table: what senders saw, memory, and how long somebody else had to wait."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import psutil

from tests.torture.outsiders import ECHOES, Seen, peak_mib
from tests.torture.peers import ANSWERS, SEEN, Notes


def test_what_was_seen_counts_for_the_receiver_that_lived_then(tmp_path: Path) -> None:
    for at, status in ((11.0, 0), (12.0, 0), (13.0, 0xA700), (21.0, 0)):
        Notes(tmp_path / ANSWERS).add(at=at, status=status)
    Notes(tmp_path / SEEN).add(at=14.0, saw="cut")
    Notes(tmp_path / SEEN).add(at=15.0, saw="no association")
    for at in (10.5, 11.0, 18.0, 19.0, 22.0, 22.5):
        Notes(tmp_path / ECHOES).add(at=at)
    seen = Seen()
    seen.add(tmp_path, [(10.0, "receive: a"), (17.0, "receive: b")])
    assert seen.by_senders["receive: a"] == {"success": 2, "0xA700": 1, "cut": 1, "no association": 1}
    assert seen.by_senders["receive: b"] == {"success": 1}
    assert seen.outage_s == {"receive: a": 7.0, "receive: b": 3.0}
    seen.note_memory("receive: a", 120.4)
    seen.note_memory("receive: a", 110.0)
    line = "      120            7.0 s  2 success, 1 0xA700, 1 cut, 1 no association"
    assert seen.columns("receive: a") == line
    assert seen.columns("deliver: c") == ""


def test_the_memory_of_a_process_is_its_peak_or_that_of_one_it_started() -> None:
    code = "block = bytearray(b'x') * (256 * 1024 * 1024); del block; print(flush=True); input()"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"\n"
        assert psutil.Process(process.pid).memory_info().rss < 256 * 1024 * 1024, "it has given it back"
        peak = peak_mib(process.pid)
        assert 256 < peak < 512
        assert peak_mib(os.getpid()) >= peak
        process.communicate(b"\n")
    assert peak_mib(2**22 + 1) == 0.0
