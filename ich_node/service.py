"""What long-running roles share: stopping on a signal, telling systemd how it is, and listening."""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Final

from ich_node.errors import StartError

SUPERVISED: Final = "ICH_NODE_SUPERVISED"
"""Environment variable that tells a role to end with whoever holds its standard input."""

BOOT: Final = Path("/proc/sys/kernel/random/boot_id")
_BOOT_VARIABLE: Final = "ICH_NODE_BOOT_ID"
"""Set by the units (%b of systemd.unit(5)), whose sandbox hides the file."""
_PR_SET_DUMPABLE: Final = 4
"""prctl(2)."""
_M_ARENA_MAX: Final = -8
"""mallopt(3)."""
_MANY_STRINGS: Final = 100_000
_MANY_WITH_TORCH: Final = 400_000
_GIVE_BACK_S: Final = 10.0


def boot_id() -> str:
    """Say which boot of the machine this is; empty where a sandbox hides it."""
    try:
        boot = os.environ.get(_BOOT_VARIABLE) or BOOT.read_text()
    except OSError:
        return ""
    return boot.strip().replace("-", "")


def keep_to_ourselves() -> None:
    """Make files that others cannot read, and never leave the memory, which holds patient data and keys, in a core.

    A limit of 0 alone does not keep a core from a program that the kernel pipes it to (core(5)); a process that is not
    dumpable is also none that another of the same user can look into (ptrace(2)).
    """
    os.umask(0o077)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)


def share_memory_among_threads() -> None:
    """Let all threads allocate from one arena.

    The GNU C library gives up to eight for each core to a process with many threads, of which none gives back what
    another could use (mallopt(3)), and malloc_trim(3) leaves the end of all but the first as it is: resident memory
    would stay at the highest that the threads ever needed together. Other libraries have no such limit, and need none.
    """
    limit = getattr(ctypes.CDLL(None), "mallopt", None)
    if limit is not None:
        limit(_M_ARENA_MAX, 1)


def let_interned_strings_settle(*, with_torch: bool = False) -> None:
    """Let Python's table of interned strings grow to its size now.

    Parts of paths are interned as long as they live (pathlib). Each takes a place in the table that is not used again;
    when all are taken, the table is made anew with room for three times what it holds: 2 MiB at once after some 16,000
    images in the receiver, 7 in the worker, which looked like a leak.

    Args:
        with_torch: three times as many strings are there from the start, in a table four times as large.
    """
    for number in range(_MANY_WITH_TORCH if with_torch else _MANY_STRINGS):
        sys.intern(f"{number} of many")


def give_memory_back() -> None:
    """Give the system what was freed; takes some milliseconds.

    The GNU C library keeps what lies below a piece in use: after each job that needed much, resident memory would stay
    at its peak (malloc_trim(3)). Other libraries have no such call.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


class MemoryGivenBack:
    """Gives memory back now and then, in a loop that asks more often."""

    def __init__(self) -> None:
        self._at = 0.0

    def look(self) -> None:
        """Give back what was freed, where it is time: work that came at once needed more than the rest."""
        if time.monotonic() >= self._at:
            give_memory_back()
            self._at = time.monotonic() + _GIVE_BACK_S


@contextmanager
def stop_on_signals() -> Iterator[threading.Event]:
    """Give an event that SIGTERM and SIGINT set; the former handlers return at the end."""
    stop = threading.Event()

    def on_signal(_number: int, _frame: FrameType | None) -> None:
        stop.set()

    if os.environ.get(SUPERVISED) == "1":
        threading.Thread(target=_set_at_end_of_input, args=(stop,), daemon=True, name="supervisor watch").start()
    before = {number: signal.signal(number, on_signal) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _set_at_end_of_input(stop: threading.Event) -> None:
    """The supervisor holds the other end of our standard input: when it dies, however, we stop too."""
    while os.read(0, 1024):
        pass
    stop.set()


class SystemdNotifier:
    """Tell systemd (``Type=notify``, ``WatchdogSec``) that we are ready, alive or stopping; silent elsewhere."""

    def __init__(self) -> None:
        import sdnotify  # a machine that only trains has none

        # without systemd sdnotify opens a socket and drops it unclosed
        self._notifier = sdnotify.SystemdNotifier() if os.environ.get("NOTIFY_SOCKET") else None
        if self._notifier is not None and self._notifier.socket is not None:
            self._notifier.socket.setblocking(False)  # who listens may be stopped; a role must not hang with it

    def ready(self, status: str) -> None:
        self._tell(f"READY=1\nSTATUS={status}")

    def alive(self) -> None:
        self._tell("WATCHDOG=1")

    def stopping(self) -> None:
        self._tell("STOPPING=1")

    def _tell(self, state: str) -> None:
        if self._notifier is not None:
            self._notifier.notify(state)


def listen(bind: str, port: int, keys: str) -> socket.socket:
    """Listen on an address of this machine.

    Args:
        keys: of the configuration, that say where.

    Raises:
        StartError: it cannot be listened on.
    """
    try:
        found = socket.getaddrinfo(bind, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        return socket.create_server((bind, port), family=found[0][0], backlog=128)
    except OSError as error:
        raise StartError(f"cannot listen on {bind}:{port}: {error.strerror}; see {keys}") from error
