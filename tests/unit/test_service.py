"""What long-running roles set of their own process."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

_THREADS = """
import ctypes, sys, threading
from ich_node.service import share_memory_among_threads
if sys.argv[2] == "shared":
    share_memory_among_threads()
together = threading.Barrier(8)
def work():
    together.wait()
    kept = bytearray(4096)
    together.wait()
threads = [threading.Thread(target=work) for _ in range(8)]
[one.start() for one in threads]
[one.join() for one in threads]
libc = ctypes.CDLL(None)
libc.fopen.restype = ctypes.c_void_p
file = ctypes.c_void_p(libc.fopen(sys.argv[1].encode(), b"w"))
libc.malloc_info(0, file)
libc.fclose(file)
"""


@pytest.mark.parametrize("how", ["shared", "as the library has it"])
def test_threads_of_a_role_share_one_arena_of_memory(tmp_path: Path, how: str) -> None:
    told = tmp_path / "arenas.xml"
    subprocess.run([sys.executable, "-c", _THREADS, str(told), how], check=True, timeout=60)
    arenas = told.read_text().count("<heap nr=")
    assert (arenas == 1) == (how == "shared"), arenas


_PEAK = """
import sys
from pathlib import Path
from ich_node.service import give_memory_back

def resident_mib():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 2**20

before = resident_mib()
peak = [bytearray(4096) for _ in range(16384)]  # 64 MiB
del peak[:-1]  # the last lies above all that is freed
if sys.argv[1] == "given back":
    give_memory_back()
print(resident_mib() - before)
"""


@pytest.mark.parametrize("how", ["given back", "as the library has it"])
def test_memory_of_a_peak_is_given_back(how: str) -> None:
    said = subprocess.run([sys.executable, "-c", _PEAK, how], check=True, timeout=60, capture_output=True, text=True)
    assert (float(said.stdout) < 16) == (how == "given back"), said.stdout
