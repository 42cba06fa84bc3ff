"""One node to a state folder: locks that a process holds while it lives. The kernel frees them, however it ends."""

from __future__ import annotations

import fcntl
import os
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

from ich_node.errors import AlreadyRunning, StartError

_ANYBODY: Final = "node"
"""Held by every role together, and by ``rebuild`` alone."""
_LEAVING_S: Final = 10.0
"""So long a role waits for the one before it: what that started may end a moment after it."""
_LOOK_EVERY_S: Final = 0.1


_asking = threading.Lock()


@contextmanager
def holding_role(state_directory: Path, role: str, *, wait_s: float = _LEAVING_S, alone: bool = True) -> Iterator[None]:
    """Be the process that has this role in a state folder, until the block ends.

    Args:
        wait_s: for a process that is about to end.
        alone: False where several processes may have the role.

    Raises:
        AlreadyRunning: another process has it, or the database is being rebuilt.
        StartError: the state folder cannot be written.
    """
    with ExitStack() as locks:
        locks.enter_context(_lock(state_directory, _ANYBODY, fcntl.LOCK_SH, wait_s, "its database is being rebuilt"))
        kind = fcntl.LOCK_EX if alone else fcntl.LOCK_SH
        locks.enter_context(_lock(state_directory, role, kind, wait_s, f"another `ich-node {role}` works on it"))
        yield


@contextmanager
def holding_the_folder(state_directory: Path) -> Iterator[None]:
    """Be the only process that works on a state folder, until the block ends.

    Raises:
        AlreadyRunning: a role of the node runs.
        StartError: the state folder cannot be written.
    """
    with _lock(state_directory, _ANYBODY, fcntl.LOCK_EX, 0.0, "the node runs on it: stop it first"):
        yield


def refuse_where_it_runs(state_directory: Path, roles: Iterable[str]) -> None:
    """See that nobody has any of these roles now.

    Raises:
        AlreadyRunning: somebody has.
        StartError: the state folder cannot be written.
    """
    for role in roles:
        with holding_role(state_directory, role, wait_s=0.0):
            pass


def role_is_held(state_directory: Path, role: str) -> bool:
    """Say whether a process has this role now. A process that begins in this very moment waits for us, unharmed."""
    with _asking:  # or two who ask at once would each take the other for the role
        return _is_locked(state_directory, role)


def _is_locked(state_directory: Path, role: str) -> bool:
    try:
        descriptor = os.open(state_directory / f"{role}.lock", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


@contextmanager
def _lock(state_directory: Path, name: str, kind: int, wait_s: float, why: str) -> Iterator[None]:
    try:
        state_directory.mkdir(0o700, parents=True, exist_ok=True)
        descriptor = os.open(state_directory / f"{name}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise StartError(f"the state folder {state_directory} cannot be written: {error.strerror}") from error
    try:
        _wait_for(descriptor, kind, wait_s, f"the state folder {state_directory} is in use: {why}")
        yield
    finally:
        os.close(descriptor)  # which frees it; the file stays, or two processes could lock two files of one name


def _wait_for(descriptor: int, kind: int, wait_s: float, refusal: str) -> None:
    deadline = time.monotonic() + wait_s
    while True:
        try:
            fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                raise AlreadyRunning(refusal) from None
            time.sleep(_LOOK_EVERY_S)
        else:
            return
