"""Audit messages as syslog, and the connection that takes them (PS3.15 A.6, RFC 5424, RFC 5425)."""

from __future__ import annotations

import re
import socket
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ich_node.audit.message import utc

PRIORITY: Final = 85
"""Facility 10 (security), severity 5 (notice)."""
PRIORITY_OF_FAILURE: Final = 84
"""Severity 4 (warning)."""
MESSAGE_ID: Final = "DICOM+RFC3881"
APPLICATION_NAME: Final = "ich-node"
_BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"
_UNPRINTABLE: Final = re.compile(r"[^\x21-\x7e]")
_LONGEST_HOST: Final = 255
_LONGEST_PROCESS: Final = 128
_LONGEST_ANSWER: Final = 4096


def format_message(xml: bytes, at: float, host: str, process: str, *, failed: bool = False) -> bytes:
    """Make one syslog message of an audit message (RFC 5424 6)."""
    priority = PRIORITY_OF_FAILURE if failed else PRIORITY
    host, process = _word(host)[:_LONGEST_HOST], _word(process)[:_LONGEST_PROCESS]
    head = f"<{priority}>1 {utc(at)} {host} {APPLICATION_NAME} {process} {MESSAGE_ID} - "
    return head.encode("ascii") + _BYTE_ORDER_MARK + xml


def xml_of(message: bytes) -> bytes:
    """Give the audit message that a syslog message holds."""
    return message.partition(_BYTE_ORDER_MARK)[2]


def time_of(message: bytes) -> str:
    """Give when it was, as it is written."""
    return message.split(b" ", 2)[1].decode("ascii")


@dataclass(frozen=True, slots=True)
class SyslogServer:
    """Where audit messages go."""

    host: str
    port: int = 6514
    ca_file: Path | None = None
    """Certificates that the server's must come from; None: those of the system."""
    client_certificate: Path | None = None
    client_key: Path | None = None

    def context(self) -> ssl.SSLContext:
        """Make the TLS context: 1.2 or newer, the server's certificate and name are checked.

        Raises:
            OSError: a file cannot be used (``ssl.SSLError`` is one).
        """
        context = ssl.create_default_context(cafile=None if self.ca_file is None else str(self.ca_file))
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if self.client_certificate is not None:
            context.load_cert_chain(self.client_certificate, self.client_key)
        return context


class SyslogConnection:
    """One TLS connection to a syslog server. Syslog answers nothing: what is sent may yet be lost with the connection.

    Raises:
        OSError: whatever breaks it (``ssl.SSLError`` and time-outs are).
    """

    def __init__(self, server: SyslogServer, timeout_s: float) -> None:
        plain = socket.create_connection((server.host, server.port), timeout_s)
        try:
            plain.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            self._tls = server.context().wrap_socket(plain, server_hostname=server.host)
        except BaseException:
            plain.close()
            raise
        self._timeout_s = timeout_s

    def send(self, messages: Sequence[bytes]) -> None:
        """Send messages, each with its length before it (RFC 5425 4.3)."""
        self._tls.sendall(b"".join(b"%d %s" % (len(one), one) for one in messages))

    def look(self) -> None:
        """See that the server has not gone: it has nothing to say but that it ends the connection.

        Raises:
            ConnectionResetError: it has.
        """
        self._tls.setblocking(False)
        try:
            if not self._tls.recv(_LONGEST_ANSWER):
                raise ConnectionResetError("the server ended the connection")
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return
        finally:
            self._tls.settimeout(self._timeout_s)

    def finish(self) -> bool:
        """End the connection; True where the server has read to its end.

        It says so by TLS (close_notify), or as rsyslog does by closing its side in order: with something unread, its
        system would reset the connection.
        """
        try:
            self._tls.unwrap().close()
        except ssl.SSLEOFError:
            self.close()
        except OSError:
            self.close()
            return False
        return True

    def close(self) -> None:
        """Drop the connection."""
        self._tls.close()


def _word(text: str) -> str:
    return _UNPRINTABLE.sub("-", text) or "-"
