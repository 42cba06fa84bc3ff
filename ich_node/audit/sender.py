"""The thread that sends the trail to the syslog server, in order, until it has it all. Nobody waits for it.

Syslog has no answer (RFC 5425 4.4): what was written to a connection is lost where the server dies before it reads it.
So a message counts as sent only when the connection has held for some seconds after it, or when the server answered the
end of the connection. Everything later is sent again over the next connection. A repeat is the same message byte for
byte, and no two messages are: none has the time and process of another.
"""

from __future__ import annotations

import fcntl
import os
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Final

from ich_node.audit.stored import FOLDER, audit_files, read_positions, read_records, write_positions
from ich_node.audit.syslog import SyslogConnection, SyslogServer
from ich_node.config import Config
from ich_node.credentials import secret_path_or_name
from ich_node.errors import ConfigError, IchNodeError, SecretFileError
from ich_node.log import EventLog
from ich_node.secret_files import check_private

_LOCK: Final = "sender.lock"
_POLL_S: Final = 0.25
_SETTLE_S: Final = 10.0
"""For this long a connection must hold after a message until it counts as sent."""
_TIMEOUT_S: Final = 10.0
_FIRST_PAUSE_S: Final = 1.0
_LONGEST_PAUSE_S: Final = 60.0
_AT_ONCE: Final = 200
"""Messages of one file, before the next has its turn."""

log = EventLog("audit")


@dataclass(slots=True)
class _Progress:
    """Up to where each file was sent, and up to where for sure."""

    sure: dict[str, int]
    sent: dict[str, int] = field(default_factory=dict)
    unsure: deque[tuple[float, str, int]] = field(default_factory=deque)
    """When, which file, up to where."""

    def __post_init__(self) -> None:
        self.sent = dict(self.sure)

    def note(self, name: str, end: int) -> None:
        self.sent[name] = end
        self.unsure.append((time.monotonic(), name, end))

    def settle(self, before: float) -> bool:
        """Take what was sent before a time as sure; True where there was something."""
        settled = False
        while self.unsure and self.unsure[0][0] <= before:
            _, name, end = self.unsure.popleft()
            self.sure[name] = end
            settled = True
        return settled

    def go_back(self) -> None:
        """What is not sure is to be sent again."""
        self.sent = dict(self.sure)
        self.unsure.clear()


class AuditSender:
    """Sends the records of a folder to a server.

    Args:
        settle_s: for this long a connection must hold after a message until it counts as sent.
    """

    def __init__(self, directory: Path, server: SyslogServer, settle_s: float = _SETTLE_S) -> None:
        self._directory = directory
        self._server = server
        self._settle_s = settle_s
        self._silent = False

    def run(self, stop: threading.Event) -> None:
        """Send until told to stop; then end the connection in order."""
        pause_s = _FIRST_PAUSE_S
        with self._alone(stop) as mine:
            while mine and not stop.is_set():
                progress = _Progress(read_positions(self._directory))
                began = time.monotonic()
                try:
                    self._send_over_one_connection(progress, stop)
                except (OSError, IchNodeError) as error:
                    self._note_silence(error)
                    pause_s = _FIRST_PAUSE_S if time.monotonic() - began > self._settle_s else pause_s
                    stop.wait(pause_s)
                    pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)

    @contextmanager
    def _alone(self, stop: threading.Event) -> Iterator[bool]:
        """Wait until no other process sends this trail."""
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(self._directory / _LOCK, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            while not stop.is_set():
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except OSError:
                    stop.wait(_POLL_S)
                else:
                    break
            yield not stop.is_set()
        finally:
            os.close(descriptor)

    def _send_over_one_connection(self, progress: _Progress, stop: threading.Event) -> None:
        connection = SyslogConnection(self._server, _TIMEOUT_S)
        try:
            self._send_while_it_holds(connection, progress, stop)
        except BaseException:
            connection.close()
            raise
        if connection.finish():
            progress.settle(time.monotonic())
        write_positions(self._directory, progress.sure)

    def _send_while_it_holds(self, connection: SyslogConnection, progress: _Progress, stop: threading.Event) -> None:
        began = time.monotonic()
        while not stop.is_set():
            busy = self._send_some(connection, progress)
            connection.look()
            if self._silent and time.monotonic() - began > self._settle_s:
                log.info("the audit server takes messages again")
                self._silent = False
            if progress.settle(time.monotonic() - self._settle_s):
                write_positions(self._directory, progress.sure)
            if not busy:
                stop.wait(_POLL_S)

    def _send_some(self, connection: SyslogConnection, progress: _Progress) -> bool:
        """Send a part of what waits in every file, those begun first first; False where nothing waits."""
        busy = False
        for path in audit_files(self._directory):
            start = progress.sent.get(path.name, 0)
            if path.stat().st_size <= start:
                continue
            records = list(islice(read_records(path, start), _AT_ONCE))
            if records:
                connection.send([one.message for one in records])
                progress.note(path.name, records[-1].end)
                busy = True
        return busy

    def _note_silence(self, error: Exception) -> None:
        if not self._silent:
            where = f"{self._server.host}:{self._server.port}"
            why = getattr(error, "strerror", None) or type(error).__name__
            log.error("the audit server takes no messages; they are kept and sent later", server=where, why=why)
        self._silent = True


def server_of(config: Config) -> SyslogServer | None:
    """Give the server of a configuration; None where the trail stays on this machine."""
    settings = config.audit
    if not (settings.enabled and settings.host):
        return None

    def file(name: str) -> Path | None:
        return secret_path_or_name(name) if name else None

    return SyslogServer(
        settings.host,
        settings.port,
        file(settings.ca_file),
        file(settings.client_certificate),
        file(settings.client_key),
    )


def check_server(config: Config, source: Path | str = "configuration") -> None:
    """See whether the certificates for the server can be used.

    Raises:
        ConfigError: they cannot.
    """
    server = server_of(config)
    if server is not None:
        try:
            if server.client_key is not None:
                check_private(server.client_key)
            server.context()
        except SecretFileError as error:
            raise ConfigError(source, [f"audit.client_key = {error.path}: {error.why}"]) from None
        except OSError as error:
            why = error.strerror or type(error).__name__
            fault = f"audit.ca_file, audit.client_certificate, audit.client_key: cannot be used ({why})"
            raise ConfigError(source, [fault]) from None


@contextmanager
def sending_audit(config: Config, stop: threading.Event) -> Iterator[None]:
    """Send the trail in a thread, where a server is configured."""
    server = server_of(config)
    if server is None:
        yield
        return
    ended = threading.Event()
    sender = AuditSender(config.state_directory / FOLDER, server)
    thread = threading.Thread(target=sender.run, args=(ended,), name="audit sender", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        ended.set()
        thread.join(2 * _TIMEOUT_S)
