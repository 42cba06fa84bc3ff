"""TLS as DICOM asks for it: BCP 195 with RFC 8996 and RFC 9325 (PS3.15 B.12), and nothing weaker.

TLS 1.3, or 1.2 with an ephemeral key exchange on elliptic curves and authenticated encryption. That is within what
PS3.15 B.13 permits too.
"""

from __future__ import annotations

import hashlib
import socket
import ssl
import threading
import time
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, Final

from ich_node.certificates import faults_of, read_own_certificate
from ich_node.errors import ConfigError
from ich_node.log import EventLog
from ich_node.records import PeerCertificate, TlsFiles

CIPHERS_OF_TLS_1_2: Final = (
    "ECDHE-ECDSA-AES256-GCM-SHA384",
    "ECDHE-RSA-AES256-GCM-SHA384",
    "ECDHE-ECDSA-CHACHA20-POLY1305",
    "ECDHE-RSA-CHACHA20-POLY1305",
    "ECDHE-ECDSA-AES128-GCM-SHA256",
    "ECDHE-RSA-AES128-GCM-SHA256",
)
CIPHERS_OF_TLS_1_3: Final = ("TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256", "TLS_AES_128_GCM_SHA256")
"""What OpenSSL takes by itself: there is no way to choose, and all are fit."""
_SECURITY_LEVEL: Final = "@SECLEVEL=2"
"""OpenSSL's: keys of 112 bits of security (RSA 2048, curves of 224), no signature with SHA-1."""
_LOOK_S: Final = 1.0
"""Between two looks at the files."""

log = EventLog("tls")


class ServerTls:
    """How others connect to us: the certificate on disk as it is now, or the last that could be used.

    Connections that stand go on with the certificate they began with.

    Raises:
        ConfigError: every fault of the files.
    """

    def __init__(self, files: TlsFiles, *, require_certificate: bool = True) -> None:
        self._files = files
        self._require_certificate = require_certificate
        if faults := faults_of(files):
            raise ConfigError("[tls]", faults)
        self._lock = threading.Lock()
        self._seen = _stamps(files)
        self._looked_at = time.monotonic()
        self._context = server_context(files, require_certificate=require_certificate)

    def context(self) -> ssl.SSLContext:
        """Give what a new connection is to be wrapped with."""
        with self._lock:
            now = time.monotonic()
            if now - self._looked_at >= _LOOK_S:
                self._looked_at = now
                self._look()
            return self._context

    def _look(self) -> None:
        stamps = _stamps(self._files)
        if stamps == self._seen:
            return
        self._seen = stamps
        faults = faults_of(self._files)
        try:
            if not faults:
                self._context = server_context(self._files, require_certificate=self._require_certificate)
        except (OSError, ValueError) as error:
            faults = [reason(error)]
        if faults:
            log.error("new certificates cannot be used; the old ones stay in use", None, why="; ".join(faults))
            return
        log.info("certificates loaded anew", sha256=read_own_certificate(self._files).sha256)
        log_state(self._files, serves=True)


def server_context(files: TlsFiles, *, require_certificate: bool = True) -> ssl.SSLContext:
    """Make a context for those who connect to us; what they show must be for clients (OpenSSL checks the purpose).

    Args:
        require_certificate: refuse who shows none. One that is shown must be good in any case.

    Raises:
        OSError: the files cannot be used; of ssl.SSLError too.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    _harden(context, files)
    context.verify_mode = ssl.CERT_REQUIRED if require_certificate else ssl.CERT_OPTIONAL
    context.num_tickets = 0
    return context


def client_context(files: TlsFiles) -> ssl.SSLContext:
    """Make a context for those we connect to, with :class:`_Noting` for its sockets.

    It is made for every association, which takes a millisecond: so renewed files are in use at once.

    Raises:
        OSError: the files cannot be used; of ssl.SSLError too.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    _harden(context, files)
    context.hostname_checks_common_name = False  # RFC 9525: the name is in the SubjectAlternativeName
    context.sslsocket_class = _Noting
    return context


def _harden(context: ssl.SSLContext, files: TlsFiles) -> None:
    context.minimum_version = ssl.TLSVersion.TLSv1_2  # RFC 8996
    context.set_ciphers(":".join((*CIPHERS_OF_TLS_1_2, _SECURITY_LEVEL)))
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_TICKET
    context.options |= ssl.OP_CIPHER_SERVER_PREFERENCE | ssl.OP_SINGLE_ECDH_USE
    context.load_cert_chain(files.certificate, files.key, "")  # the password: without one, OpenSSL would ask a terminal
    context.load_verify_locations(files.authorities)
    if files.revoked is not None:
        context.load_verify_locations(files.revoked)
        context.verify_flags |= ssl.VERIFY_CRL_CHECK_LEAF


def peer_certificate(connection: socket.socket | None) -> PeerCertificate | None:
    """Return the certificate that the other side has shown; None without TLS, or where it showed none."""
    if not isinstance(connection, ssl.SSLSocket):
        return None
    try:
        encoded, read = connection.getpeercert(binary_form=True), connection.getpeercert()
    except (OSError, ValueError):  # the handshake was not done
        return None
    if not encoded or not read:
        return None
    alternatives: Any = read.get("subjectAltName", ())
    names = {name.lower() if kind == "DNS" else name for kind, name in alternatives if kind in ("DNS", "URI")}
    return PeerCertificate(hashlib.sha256(encoded).hexdigest(), frozenset(names))


def why_it_failed(context: ssl.SSLContext) -> str:
    """Say what went wrong with the last connection of a client's context; empty where nothing is known."""
    return str(getattr(context, _FAILURE, ""))


def reason(error: BaseException) -> str:
    """Say in plain words why a handshake failed; nothing in it comes from the other side but the kind of its alert."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"TLS: the certificate of the other side is refused: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        return f"TLS: {(error.reason or type(error).__name__).lower().replace('_', ' ')}"
    return str(error)


def log_state(files: TlsFiles, *, serves: bool = False, calls: bool = False) -> None:
    """Log what others refuse our certificate for, and that it will soon expire."""
    name, now = str(files.certificate), datetime.now(UTC)
    try:
        own = read_own_certificate(files)
    except (OSError, ValueError) as error:
        log.error("our certificate is refused by others", None, certificate=name, why=type(error).__name__)
        return
    for why in own.refusals(now, serves=serves, calls=calls):
        log.error("our certificate is refused by others", None, certificate=name, why=why)
    if reminder := own.reminder(now):
        log.warning("our certificate soon expires", certificate=name, why=reminder)


class _Noting(ssl.SSLSocket):
    """Leaves at its context what went wrong: pynetdicom says only that there is no association.

    As a text: an exception would hold the socket in a circle.
    In TLS 1.3 the other side refuses our certificate after our handshake, so that the first read tells of it.
    """

    def do_handshake(self, block: bool = False) -> None:
        try:
            super().do_handshake(block)
        except OSError as error:
            setattr(self.context, _FAILURE, reason(error))
            raise

    def recv(self, buflen: int = 1024, flags: int = 0) -> bytes:
        try:
            return super().recv(buflen, flags)
        except ssl.SSLError as error:
            setattr(self.context, _FAILURE, reason(error))
            raise

    def shutdown(self, how: int) -> None:
        """Shut down what may be gone: pynetdicom 3.0.4 closes no socket of which this fails."""
        with suppress(OSError):
            super().shutdown(how)


_FAILURE: Final = "failure"


def _stamps(files: TlsFiles) -> tuple[tuple[int, int, int] | None, ...]:
    return tuple(map(_stamp, files.paths))


def _stamp(path: Any) -> tuple[int, int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns, status.st_size
