"""The threads of an association wait until there is something to do; pynetdicom 3.0.4 lets each look a thousand times a
second, which at eight associations takes as much of the processor as storing their images."""

from __future__ import annotations

import os
import queue
import select
import threading
from contextlib import suppress
from typing import Any, Final

from pynetdicom.association import Association

LOOK_S: Final = 0.1
"""Longest wait: pynetdicom's timers and its wish to end are looked at in between."""


class Alarm:
    """Wakes a thread that waits for a connection, where it has to send instead of to read."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._descriptor = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)

    def ring(self) -> None:
        """Wake who waits, or who is about to."""
        with self._lock:
            if self._descriptor >= 0:
                os.eventfd_write(self._descriptor, 1)

    def wait_for(self, connection: int | None) -> bool:
        """Wait until a connection has something to read, the alarm rings, or LOOK_S is over.

        Args:
            connection: None where nothing is to be read now.

        Returns:
            Whether there is something to read.
        """
        poll = select.poll()
        if connection is not None:
            poll.register(connection, select.POLLIN)
        if self._descriptor >= 0:
            poll.register(self._descriptor, select.POLLIN)
        came = {descriptor for descriptor, _ in poll.poll(1000 * LOOK_S)}
        if self._descriptor in came:
            with suppress(BlockingIOError):
                os.eventfd_read(self._descriptor)
        return connection in came

    def close(self) -> None:
        """Give the descriptor back; may be called again."""
        with self._lock:
            if self._descriptor >= 0:
                os.close(self._descriptor)
            self._descriptor = -1

    def __del__(self) -> None:
        self.close()


class ToBeSent(queue.Queue[Any]):
    """What the association's own thread wants sent; rings the thread that holds the connection."""

    def __init__(self, alarm: Alarm) -> None:
        super().__init__()
        self._alarm = alarm

    def put(self, item: Any, block: bool = True, timeout: float | None = None) -> None:
        super().put(item, block, timeout)
        self._alarm.ring()


class Messages(queue.Queue[Any]):
    """Messages of the peer; asked without blocking, it still waits a moment for one."""

    def __init__(self) -> None:
        super().__init__()
        self._woken = False

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        if not block:
            with self.not_empty:
                if not self._qsize() and not self._woken:
                    self.not_empty.wait(LOOK_S)
                self._woken = False
        return super().get(block, timeout)

    def wake(self) -> None:
        """Let who waits look at what else has happened."""
        with self.not_empty:
            self._woken = True
            self.not_empty.notify_all()


class OfTheAssociation(queue.Queue[Any]):
    """Release, abort and the like from the peer; wakes the thread that waits for messages."""

    def __init__(self, messages: Messages) -> None:
        super().__init__()
        self._messages = messages

    def put(self, item: Any, block: bool = True, timeout: float | None = None) -> None:
        super().put(item, block, timeout)
        self._messages.wake()


def wait_instead_of_looking(association: Association, messages: Messages) -> Alarm:
    """Give an association that has not begun queues that are waited for; returns what wakes its reading thread."""
    alarm = Alarm()
    association.dul.to_provider_queue = ToBeSent(alarm)
    association.dul.to_user_queue = OfTheAssociation(messages)
    association.dimse.msg_queue = messages
    return alarm
