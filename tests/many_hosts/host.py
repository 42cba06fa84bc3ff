"""What runs on one host: its roles, each started again when it ends, as systemd does."""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

_CLONE_NEWNET: Final = 0x40000000
_CLONE_NEWUTS: Final = 0x04000000
_PR_SET_PDEATHSIG: Final = 1
"""prctl(2)."""
_PAUSE_S: Final = 0.3


def enter(namespace: str, hostname: str) -> None:
    """Be on a host from now on: in its network namespace, under its name (setns(2), unshare(2))."""
    libc = ctypes.CDLL(None, use_errno=True)
    descriptor = os.open(f"/run/netns/{namespace}", os.O_RDONLY)
    if libc.setns(descriptor, _CLONE_NEWNET) or libc.unshare(_CLONE_NEWUTS):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    os.close(descriptor)
    socket.sethostname(hostname)


def be_a_host(order: dict[str, Any], become: Callable[[dict[str, Any]], int]) -> None:
    """Run the roles of an order until the whole process group is killed."""
    os.setsid()
    _die_with_parent()
    log = Path(order["log"])
    running: dict[int, str] = {}
    waiting: list[str] = list(order["roles"])
    while True:
        for role in waiting:
            running[_fork(order, role, log.with_name(f"{log.stem}-{role}.log"), become)] = role
        pid, _ = os.wait()
        waiting = [running.pop(pid)]
        time.sleep(_PAUSE_S)


def _fork(order: dict[str, Any], role: str, log: Path, become: Callable[[dict[str, Any]], int]) -> int:
    pid = os.fork()
    if pid:
        return pid
    _die_with_parent()
    status = 70
    try:
        file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.dup2(file, 2)
        os.dup2(file, 1)
        kept = {name: value for name, value in order.items() if name not in ("namespace", "hostname", "roles")}
        status = become(kept | {"role": role})
    except SystemExit as error:
        status = int(error.code or 0)
    except BaseException:  # noqa: BLE001 - whatever it is, the child must not go on as the host
        sys.excepthook(*sys.exc_info())
    finally:
        os._exit(status)


def _die_with_parent() -> None:
    """Leave nothing behind where the tests themselves are killed."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def shorten_leases(lease_s: float) -> None:
    """Let every lease, and the patience with a silent database, be this long: a test need not wait for a minute."""
    import ich_node.alerter
    import ich_node.deliverer
    import ich_node.job_queue.turns
    from ich_node.database import postgresql
    from ich_node.worker import concluding, loop, reading, scoring_planes

    for module in (loop, reading, scoring_planes, concluding, ich_node.job_queue.turns):
        module.LEASE_S = lease_s
    ich_node.deliverer._LEASE_S = lease_s
    ich_node.alerter._SPARE_LEASE_S = lease_s
    ich_node.job_queue.turns._ASKED_EVERY_S = lease_s / 6
    postgresql._LONGEST_SILENCE_S = round(lease_s)
