"""The other end of ``SystemdNotifier``: what a role tells systemd, ``serve`` hears from its children."""

from __future__ import annotations

import socket
import time
import uuid
from typing import Final

_LONGEST_MESSAGE: Final = 4096


class Heartbeat:
    """When a child last said that it is ready or alive (sd_notify(3)), on a socket of its own."""

    def __init__(self) -> None:
        self.address = f"@ich-node-{uuid.uuid4().hex}"
        """For ``NOTIFY_SOCKET``: a name in the kernel, no file."""
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self._socket.bind(self.address.replace("@", "\0", 1))
        self._began = time.monotonic()
        self._heard_at: float | None = None

    def silent_s(self, longest_start_s: float) -> float:
        """Say for how long nothing was heard; before the child is ready, how far it is beyond its longest start."""
        self._listen()
        now = time.monotonic()
        return max(0.0, now - self._began - longest_start_s) if self._heard_at is None else now - self._heard_at

    def close(self) -> None:
        self._socket.close()

    def _listen(self) -> None:
        while True:
            try:
                message = self._socket.recv(_LONGEST_MESSAGE)
            except BlockingIOError:
                return
            if message.startswith((b"READY=1", b"WATCHDOG=1")):
                self._heard_at = time.monotonic()
