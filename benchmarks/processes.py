"""Start what is measured as processes of its own, and read their time and memory from /proc."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psutil

REPOSITORY = Path(__file__).resolve().parents[1]
MEBIBYTE = 1024 * 1024
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")

NODE: Final = """\
[node]
bind = "127.0.0.1"
port = {port}
state_directory = "{state}"
[receiver]
allow_any = true
"""
"""What the configuration of every node here begins with."""


def free_port() -> int:
    """A TCP port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def dcmtk_environment() -> dict[str, str]:
    """Without this, dcmtk waits 40 ms for every small message (Nagle's algorithm and delayed acknowledgement)."""
    return os.environ | {"TCP_NODELAY": "1"}


@contextmanager
def running(command: Sequence[str | Path], log: Path, environment: dict[str, str] | None = None) -> Iterator[int]:
    """Run a program in the background; gives its process number."""
    with log.open("ab") as output:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=environment)
    try:
        yield process.pid
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextmanager
def running_role(role: str, config: Path, log: Path) -> Iterator[int]:
    """Run a command of the node and wait until its log says that it is ready."""
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    words = {"receive": "receiver ready", "work": "model ready", "deliver": "deliverer ready", "web": "web ready"}[role]
    with running([sys.executable, "-m", "ich_node", role, "--config", config], log, environment) as pid:
        wait_for_words(log, words, pid)
        yield pid


def wait_for_words(log: Path, words: str, pid: int, longest_s: float = 180.0) -> None:
    """Wait until a log holds some words."""
    deadline = time.monotonic() + longest_s
    while words not in log.read_text():
        if time.monotonic() > deadline or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
            raise RuntimeError(f"not ready; its log ends with: {log.read_text()[-1500:]}")
        time.sleep(0.02)


def wait_for_port(port: int, longest_s: float = 60.0) -> None:
    """Wait until somebody listens."""
    deadline = time.monotonic() + longest_s
    while time.monotonic() < deadline:
        try:
            socket.create_connection(("127.0.0.1", port), 0.5).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise RuntimeError(f"nobody listens on port {port}")


def cpu_seconds(pid: int) -> float:
    """Processor time of a process, its threads and its children that have ended."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return sum(int(value) for value in fields[11:15]) / _TICKS_PER_S


def tree_cpu_seconds(pid: int) -> float:
    """Processor time of a process and its children, running or ended."""
    children = psutil.Process(pid).children(recursive=True)
    return sum(cpu_seconds(one) for one in [pid, *(child.pid for child in children)])


def peak_resident_mib(pid: int) -> float:
    """The most memory that a process has held so far (VmHWM)."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) / 1024
    raise RuntimeError("no VmHWM")


@dataclass(frozen=True, slots=True)
class TreeMemory:
    """Memory of a process and all its children, MiB."""

    rss: float
    """Sum of resident sizes: what the children share is counted more than once."""
    pss: float
    """Sum of proportional sizes: what is shared is counted once."""


class MemoryWatch:
    """Look every quarter of a second how much memory a process and its children hold together."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._most = 0.0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> MemoryWatch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._over.wait(0.25):
            with suppress(psutil.NoSuchProcess):
                self._most = max(self._most, tree_memory(self._pid).pss)

    def peak_mib(self) -> float:
        """Give the largest sum of proportional sizes seen, or what one process alone has held, if that was more."""
        alone = 0.0
        for process in [psutil.Process(self._pid), *psutil.Process(self._pid).children(recursive=True)]:
            with suppress(OSError, RuntimeError):  # it has ended
                alone = max(alone, peak_resident_mib(process.pid))
        return max(self._most, alone)


def tree_memory(pid: int) -> TreeMemory:
    """Add up the memory of a process and its children."""
    rss = pss = 0
    parent = psutil.Process(pid)
    for process in [parent, *parent.children(recursive=True)]:
        try:
            full = process.memory_full_info()
        except psutil.NoSuchProcess:
            continue
        rss, pss = rss + full.rss, pss + full.pss
    return TreeMemory(rss / MEBIBYTE, pss / MEBIBYTE)
