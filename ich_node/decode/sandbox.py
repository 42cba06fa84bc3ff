"""What a child that decodes may do: compute, and read the files it is told to read.

It starts with the rights of the worker and gives up what decoding does not need. systemd's limits of the unit hold for
it as well (no network, a filter of system calls). Linux only, as systemd is; elsewhere the limits alone hold.
"""

from __future__ import annotations

import ctypes
import logging
import os
import resource
import signal
import sys
from contextlib import suppress
from typing import Final

_SET_PDEATHSIG, _SET_DUMPABLE, _SET_NO_NEW_PRIVS = 1, 4, 38  # linux/prctl.h
_MOST_FILES: Final = 64
_SPARE_CPU_S: Final = 5.0


def limit_this_process(address_space_bytes: int, parent: int, writes: bool = False) -> None:
    """Make ready a child that decodes: bounded memory, no file written, no core dump, no rights gained by a program.

    It ends with the thread that began it. Nothing of headers is written on any output.

    Args:
        address_space_bytes: of the child as a whole.
        parent: its process number.
        writes: it writes files and opens many, as where training data are made.
    """
    _end_with(parent)
    _prctl(_SET_NO_NEW_PRIVS, 1)
    _prctl(_SET_DUMPABLE, 0)  # no core dump and no debugger, not even of the same user
    limits = {
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_MEMLOCK: 0,
        resource.RLIMIT_MSGQUEUE: 0,
        resource.RLIMIT_AS: address_space_bytes,
    }
    if not writes:
        # A write to a file is an error then, for Python ignores SIGXFSZ: pipes to the worker are no files.
        limits |= {resource.RLIMIT_FSIZE: 0, resource.RLIMIT_NOFILE: _MOST_FILES}
    for what, most in limits.items():
        resource.setrlimit(what, (most, most))
    logging.getLogger("pydicom").setLevel(logging.CRITICAL)  # its messages quote header values
    # C libraries print on stdout, where `ich-node score --json` writes nothing but JSON.
    os.dup2(2, 1)


def limit_cpu_time(seconds: float) -> None:
    """Give a task so much of the processor, counted from now; a child that uses more is ended by the system.

    The pool ends a task by the clock; this holds too where the worker is stopped or busy.
    """
    used = resource.getrusage(resource.RUSAGE_SELF)
    _, most = resource.getrlimit(resource.RLIMIT_CPU)
    until = int(used.ru_utime + used.ru_stime + seconds + _SPARE_CPU_S) + 1
    resource.setrlimit(resource.RLIMIT_CPU, (until, most))


def _end_with(parent: int) -> None:
    _prctl(_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it ended while this one began
        os._exit(1)


def _prctl(option: int, value: int) -> None:
    if sys.platform == "linux":
        with suppress(OSError, AttributeError):
            ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0)
