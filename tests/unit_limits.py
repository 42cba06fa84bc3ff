"""Run a command under the limits of one of our units, where no systemd runs: as near to it as a program can come.

    python -m tests.unit_limits systemd/ich-node-receive.service COMMAND...

Of the unit's directives these are set as systemd sets them: SystemCallFilter, MemoryDenyWriteExecute,
RestrictAddressFamilies, RestrictNamespaces (system calls, by libseccomp), CapabilityBoundingSet, NoNewPrivileges,
LimitNOFILE, LimitCORE, UMask, Environment, ProcSubset, PrivateNetwork and InaccessiblePaths. It needs root, and ends
with 77 where something of it cannot be had.
"""

from __future__ import annotations

import ctypes
import errno
import os
import resource
import socket
import subprocess
import sys
from pathlib import Path
from typing import Final

CANNOT: Final = 77
SECCOMP: Final = "libseccomp.so.2"
_ALLOW, _ERRNO = 0x7FFF0000, 0x00050000
_NOT_EQUAL, _MASKED_EQUAL = 1, 7
_WRITE, _EXEC = 2, 4
_CLONE_NEWNS, _CLONE_NEWNET = 0x00020000, 0x40000000
_MS_REC, _MS_PRIVATE, _MS_BIND, _MS_NOSUID_NODEV_NOEXEC = 0x4000, 1 << 18, 0x1000, 14
_PR_CAPBSET_DROP, _PR_SET_NO_NEW_PRIVS = 24, 38

libc = ctypes.CDLL(None, use_errno=True)


class _Compare(ctypes.Structure):
    _fields_ = (
        ("arg", ctypes.c_uint),
        ("op", ctypes.c_uint),
        ("datum_a", ctypes.c_uint64),
        ("datum_b", ctypes.c_uint64),
    )


def directives(unit: Path) -> list[tuple[str, str]]:
    """Give every directive of a unit with its value, in order."""
    lines = (line.strip() for line in unit.read_text().splitlines())
    return [(name, value) for name, _, value in (line.partition("=") for line in lines if not line.startswith("#"))]


def allowed_calls(values: list[str]) -> set[str]:
    """Give the system calls that several ``SystemCallFilter=`` leave."""
    allowed: set[str] = set()
    for value in values:
        taken_away = value.startswith("~")
        calls = {call for group in value.lstrip("~").split() for call in _expand(group)}
        allowed = allowed - calls if taken_away else allowed | calls
    return allowed | {"execve", "exit", "exit_group", "rt_sigreturn"}


def _expand(group: str) -> set[str]:
    if not group.startswith("@"):
        return {group}
    told = subprocess.run(["systemd-analyze", "syscall-filter", group], capture_output=True, text=True, check=True)
    names = [line.strip() for line in told.stdout.splitlines()[1:]]
    return {call for name in names if name and not name.startswith("#") for call in _expand(name)}


class _Filter:
    def __init__(self, default: int) -> None:
        self._library = ctypes.CDLL(SECCOMP)
        self._library.seccomp_init.restype = ctypes.c_void_p
        self._context = ctypes.c_void_p(self._library.seccomp_init(ctypes.c_uint32(default)))

    def add(self, action: int, call: str, *conditions: tuple[int, int, int, int]) -> None:
        number = self._library.seccomp_syscall_resolve_name(call.encode())
        if number < 0:
            return  # not of this machine
        array = (_Compare * len(conditions))(*(_Compare(*one) for one in conditions))
        added = self._library.seccomp_rule_add_array(
            self._context, ctypes.c_uint32(action), number, len(conditions), array
        )
        assert added in (0, -errno.EACCES), (call, added)  # EACCES: it is the default already

    def load(self) -> None:
        assert self._library.seccomp_load(self._context) == 0, "seccomp_load"


def filter_calls(of: dict[str, list[str]], allowed: set[str]) -> None:
    calls, more = _Filter(_ERRNO | errno.EPERM), _Filter(_ALLOW)
    for call in allowed:
        calls.add(_ALLOW, call)
    families = {getattr(socket, name) for value in of["RestrictAddressFamilies"] for name in value.split()}
    for family in range(48):
        if family not in families:
            more.add(_ERRNO | errno.EAFNOSUPPORT, "socket", (0, 4, family, 0))
    if of.get("MemoryDenyWriteExecute") == ["yes"]:
        more.add(_ERRNO | errno.EPERM, "mmap", (2, _MASKED_EQUAL, _WRITE | _EXEC, _WRITE | _EXEC))
        for call in ("mprotect", "pkey_mprotect"):
            more.add(_ERRNO | errno.EPERM, call, (2, _MASKED_EQUAL, _EXEC, _EXEC))
    if of.get("RestrictNamespaces") == ["yes"]:
        more.add(_ERRNO | errno.EPERM, "unshare")
        more.add(_ERRNO | errno.EPERM, "setns")
        more.add(_ERRNO | errno.ENOSYS, "clone3")
    more.load()
    calls.load()  # last: it may forbid to load another


def isolate(of: dict[str, list[str]]) -> None:
    """Give up what the unit gives up outside system calls."""
    _must(libc.unshare(_CLONE_NEWNS | (_CLONE_NEWNET if of.get("PrivateNetwork") == ["yes"] else 0)))
    _must(libc.mount(b"none", b"/", None, _MS_REC | _MS_PRIVATE, None))
    if of.get("ProcSubset") == ["pid"]:
        _must(libc.mount(b"proc", b"/proc", b"proc", _MS_NOSUID_NODEV_NOEXEC, b"subset=pid,hidepid=invisible"))
    for path in (one.lstrip("-") for value in of.get("InaccessiblePaths", ()) for one in value.split()):
        if Path(path).exists():
            _must(libc.mount(b"none", path.encode(), b"tmpfs", 0, b"mode=000,size=4k"))
    for limit, name in ((resource.RLIMIT_NOFILE, "LimitNOFILE"), (resource.RLIMIT_CORE, "LimitCORE")):
        if name in of:
            resource.setrlimit(limit, (int(of[name][-1]), int(of[name][-1])))
    os.umask(int(of["UMask"][-1], 8))


def drop_capabilities() -> None:
    for number in range(64):
        libc.prctl(_PR_CAPBSET_DROP, number, 0, 0, 0)
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)
    _must(libc.capset(header, (ctypes.c_uint32 * 6)(0, 0, 0, 0, 0, 0)))
    _must(libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))


def _must(answer: int) -> None:
    if answer:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def main(unit: Path, command: list[str]) -> None:
    of: dict[str, list[str]] = {}
    for name, value in directives(unit):
        of.setdefault(name, []).append(value)
    allowed = allowed_calls(of["SystemCallFilter"])  # asks systemd-analyze, which would not run under what follows
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip().replace("-", "")
    os.environ.update(one.replace("%b", boot).split("=", 1) for one in of.get("Environment", ()))
    try:
        isolate(of)
    except OSError as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(CANNOT)
    drop_capabilities()
    filter_calls(of, allowed)
    os.execv(command[0], command)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
