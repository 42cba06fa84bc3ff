"""The trail on disk: a file per process that only grows, each record chained to the one before it.

A file begins with a line that names it and the last hash of the file before it. A record is a line: hash, length, and
the syslog message as it will be sent. The hash is the SHA-256 of the hash before and the message, so that a record that
is altered, taken out or put in shows. A file belongs to one process, which holds a lock on it as long as it writes.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from ich_node.durable import sync_directory
from ich_node.log import EventLog

SUFFIX: Final = ".audit"
HEAD: Final = b"ich-node-audit-1"
_LONGEST_FILE: Final = 8 * 1024 * 1024
_SOON_S: Final = 0.05
_MOST_WAITING: Final = 10_000
"""Records kept in memory while the disk takes none."""
_AGAIN_S: Final = 1.0

log = EventLog("audit")


class Journal:
    """The files of one process. Nothing is raised: who is recorded must not fail because recording does."""

    def __init__(self, directory: Path, process: str) -> None:
        self._directory = directory
        self._process = process
        self._writing = threading.Lock()
        self._syncing = threading.Lock()
        self._descriptor: int | None = None
        self._size = 0
        self._last_hash = "-"
        self._written = 0
        self._synced = 0
        self._last_at = 0.0
        self._sync_is_coming = False
        self._waiting: deque[bytes] = deque()
        self._unsynced: deque[bytes] = deque()
        """Written, and not yet known to be on disk."""
        self._lost = 0
        self._in_trouble = False

    def append(self, make: Callable[[float], bytes], *, durable: bool = False) -> None:
        """Write a record; it outlives this process at once, and a power cut soon.

        Args:
            make: gives the message for a time (seconds since 1970) that no other record of this process has.
            durable: return only when it outlives a power cut, too.
        """
        with self._writing:
            self._last_at = max(time.time(), self._last_at + 1e-6)
            self._waiting.append(make(self._last_at))
            self._write_waiting()
            count = self._written
        if durable:
            self._sync(count)
        if self._waiting or not durable:
            self._sync_soon()

    def take_lost(self) -> int:
        """Tell how many records were lost since the last time, and that the disk takes records again; else 0."""
        with self._writing:
            if self._waiting:
                return 0
            lost, self._lost = self._lost, 0
            return lost

    def close(self) -> None:
        """Make everything durable and let go of the file; the next record begins another."""
        with self._writing, self._syncing:
            self._let_go()

    # --------------------------------------------------------------------------------------------- writing

    def _write_waiting(self) -> None:
        try:
            while self._waiting:
                self._write(self._waiting[0])
                self._waiting.popleft()
        except OSError as error:
            self._note_trouble(error)
        else:
            if self._in_trouble:
                self._in_trouble = False
                log.info("the audit trail can be written again", lost=self._lost)

    def _note_trouble(self, error: OSError) -> None:
        if not self._in_trouble:
            log.error("the audit trail cannot be written; records wait in memory", error, errno=error.errno)
        self._in_trouble = True
        with self._syncing:
            self._let_go()  # where a record may be half written, nothing is put behind it
        while len(self._waiting) > _MOST_WAITING:
            self._waiting.popleft()
            self._lost += 1

    def _write(self, message: bytes) -> None:
        if self._descriptor is None or self._size > _LONGEST_FILE:
            self._begin_file()
        assert self._descriptor is not None, "it was just opened"
        digest = chain(self._last_hash, message)
        line = b"%s %d %s\n" % (digest.encode("ascii"), len(message), message)
        if os.write(self._descriptor, line) != len(line):
            self._give_up_file()
            raise OSError(errno.ENOSPC, "no space left for a whole record")
        self._size += len(line)
        self._last_hash = digest
        self._unsynced.append(message)
        self._written += 1

    def _begin_file(self) -> None:
        with self._syncing:
            self._let_go()
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        name = f"{datetime.now(UTC):%Y%m%dT%H%M%S.%f}-{self._process}{SUFFIX}"
        descriptor = os.open(self._directory / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o600)
        try:
            _belong_to_owner_of(self._directory, descriptor)
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            head = b"%s %s %s\n" % (HEAD, name.encode(), self._last_hash.encode())
            if os.write(descriptor, head) != len(head):
                raise OSError(errno.ENOSPC, "no space left for a new file")
            sync_directory(self._directory)
        except OSError:
            os.close(descriptor)
            raise
        self._descriptor, self._size, self._last_hash = descriptor, len(head), start_of(head)

    def _give_up_file(self) -> None:
        """Cut a half-written record off, where that can be done."""
        if self._descriptor is not None:
            with suppress(OSError):
                os.ftruncate(self._descriptor, self._size)

    # --------------------------------------------------------------------------------------------- syncing

    def _sync_soon(self) -> None:
        with self._writing:
            if self._sync_is_coming or (self._synced >= self._written and not self._waiting):
                return
            self._sync_is_coming = True
        threading.Thread(target=self._sync_later, name="audit", daemon=True).start()

    def _sync_later(self) -> None:
        pause_s = _SOON_S
        while pause_s:
            time.sleep(pause_s)
            with self._writing:
                self._write_waiting()
                count = self._written
                pause_s = _AGAIN_S if self._waiting else 0.0  # the disk may take them, even if nothing more happens
                self._sync_is_coming = pause_s > 0
            self._sync(count)

    def _sync(self, count: int) -> None:
        """Make the first ``count`` records durable; who waited for another's fsync needs none.

        Where the fsync fails, another of the same file would prove nothing (`errors.StorageFailed`): what is not known
        to be on disk is written again, into another file, once. A record that is there twice is the same byte for byte.
        """
        failed = self._fsync(count)
        if failed is None:
            return
        with self._writing:
            with self._syncing:
                if self._descriptor == failed:
                    self._waiting.extendleft(reversed(self._unsynced))
                    self._drop()
            self._write_waiting()
            count = self._written
        if self._fsync(count) is not None:
            with self._syncing:
                self._note_synced(count)  # the disk is no better elsewhere: it was told

    def _fsync(self, count: int) -> int | None:
        """Give the descriptor whose fsync failed, if it did."""
        with self._syncing:
            descriptor, up_to = self._descriptor, self._written
            if self._synced >= count or descriptor is None:
                return None
            try:
                os.fsync(descriptor)
            except OSError as error:
                log.error("the audit trail cannot be made durable", error, errno=error.errno)
                return descriptor
            self._note_synced(up_to)
            return None

    def _note_synced(self, up_to: int) -> None:
        for _ in range(up_to - self._synced):
            self._unsynced.popleft()
        self._synced = max(self._synced, up_to)

    def _let_go(self) -> None:
        if self._descriptor is not None:
            try:
                os.fsync(self._descriptor)
            except OSError as error:
                log.error("the audit trail cannot be made durable", error, errno=error.errno)
            self._drop()

    def _drop(self) -> None:
        """Close the file; what it holds is on disk, or is written again."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor, self._synced = None, self._written
            self._unsynced.clear()


def chain(before: str, message: bytes) -> str:
    """Give the hash of a record."""
    return hashlib.sha256(before.encode("ascii") + message).hexdigest()


def start_of(head: bytes) -> str:
    """Give what the first record of a file is chained to."""
    return hashlib.sha256(head).hexdigest()


def _belong_to_owner_of(directory: Path, descriptor: int) -> None:
    """Where root runs a command, the deliverer must yet be able to read what it recorded."""
    if os.geteuid() == 0:
        owner = directory.stat()
        os.fchown(descriptor, owner.st_uid, owner.st_gid)
