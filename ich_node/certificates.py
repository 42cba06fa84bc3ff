"""Our certificate and its key: can they be used, for what, and how long?

``cryptography`` is imported where it is used: it takes 13 MiB, which a process without TLS is spared.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

from ich_node.errors import SecretFileError
from ich_node.records import TlsFiles
from ich_node.secret_files import check_private

SOON: Final = timedelta(days=30)
"""Before a certificate expires, when it is time to say so."""
_A_DAY: Final = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class OwnCertificate:
    """What our certificate says of itself."""

    begins_at: datetime
    ends_at: datetime
    sha256: str
    for_servers: bool
    for_clients: bool
    """Both are true where it names no purpose (RFC 5280 4.2.1.12)."""

    def refusals(self, now: datetime, *, serves: bool, calls: bool) -> list[str]:
        """Say why who checks our certificate refuses it.

        Args:
            serves: others connect to us with TLS.
            calls: we connect to others with TLS.
        """
        said = []
        if now > self.ends_at:
            said.append(f"expired on {self.ends_at:%Y-%m-%d}: who checks it refuses us")
        if now < self.begins_at:
            said.append(f"is not valid before {self.begins_at:%Y-%m-%d %H:%M} UTC: who checks it refuses us")
        if serves and not self.for_servers:
            said.append("is not for servers (extended key usage serverAuth): who sends to us refuses it")
        if calls and not self.for_clients:
            said.append("is not for clients (extended key usage clientAuth): destinations refuse it")
        return said

    def reminder(self, now: datetime) -> str:
        """Say that it expires within 30 days; empty where it does not, or has expired."""
        left = self.ends_at - now
        is_near = timedelta(0) <= left < SOON
        return f"expires on {self.ends_at:%Y-%m-%d}, in {left // _A_DAY} days: renew it" if is_near else ""


def read_own_certificate(files: TlsFiles) -> OwnCertificate:
    """Read our certificate.

    Raises:
        OSError: the file cannot be read.
        ValueError: it holds no certificate.
    """
    from cryptography import x509
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.x509.oid import ExtendedKeyUsageOID

    first = x509.load_pem_x509_certificates(files.certificate.read_bytes())[0]
    try:
        purposes = first.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except x509.ExtensionNotFound:
        purposes = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH])
    return OwnCertificate(
        begins_at=first.not_valid_before_utc,
        ends_at=first.not_valid_after_utc,
        sha256=first.fingerprint(SHA256()).hex(),
        for_servers=ExtendedKeyUsageOID.SERVER_AUTH in purposes,
        for_clients=ExtendedKeyUsageOID.CLIENT_AUTH in purposes,
    )


def names_of(files: TlsFiles) -> list[str]:
    """Give names under which our certificate can be checked, a host's before an address; of a wildcard one that fits.

    Raises:
        OSError: the file cannot be read.
        ValueError: it holds no certificate, or one without a name.
    """
    from cryptography import x509

    first = x509.load_pem_x509_certificates(files.certificate.read_bytes())[0]
    try:
        names = first.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        raise ValueError("our certificate has no SubjectAlternativeName, so that nobody can check it") from None
    hosts = [one.replace("*", "node") for one in names.get_values_for_type(x509.DNSName)]
    found = hosts + [str(one) for one in names.get_values_for_type(x509.IPAddress)]
    if not found:
        raise ValueError("our certificate names neither a host nor an address, so that nobody can check it")
    return found


def certificate_ends_at(path: Path) -> datetime | None:
    """Say until when a certificate is good; None where it cannot be read."""
    from cryptography import x509

    try:
        return x509.load_pem_x509_certificates(path.read_bytes())[0].not_valid_after_utc
    except (OSError, ValueError):
        return None


def faults_of(files: TlsFiles) -> list[str]:
    """Name everything for which these files cannot be used, each with its key in the configuration."""
    from cryptography import x509

    faults = [
        *_fault_of("certificate", files.certificate, x509.load_pem_x509_certificates, "no certificate in PEM form"),
        *_fault_of("key", files.key, _look_like_a_key, "no private key in PEM form, or one with a password"),
        *_fault_of("ca_file", files.authorities, x509.load_pem_x509_certificates, "no certificate in PEM form"),
    ]
    if files.revoked is not None:
        faults += _fault_of("crl_file", files.revoked, _check_revocations, "no revocation list in PEM form")
    try:
        check_private(files.key)
    except SecretFileError as error:
        if files.key.exists():
            faults.append(f"tls.key = {files.key}: {error.why}")
    if not faults:
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(files.certificate, files.key, "")
        except (OSError, ValueError) as error:
            why = getattr(error, "reason", None) or type(error).__name__
            faults.append(f"tls.key = {files.key}: cannot be used with {files.certificate} ({why})")
    return faults


def _fault_of(key: str, path: Path, read: Callable[[bytes], Any], otherwise: str) -> list[str]:
    try:
        read(path.read_bytes())
    except OSError as error:
        return [f"tls.{key} = {path}: cannot be read ({error.strerror})"]
    except _Expired as error:
        return [f"tls.{key} = {path}: {error}"]
    except ValueError:
        return [f"tls.{key} = {path}: {otherwise}"]
    return []


class _Expired(ValueError):
    """A list that is too old."""


def _look_like_a_key(content: bytes) -> None:
    if b"PRIVATE KEY-----" not in content or b"ENCRYPTED" in content:
        raise ValueError


def _check_revocations(content: bytes) -> None:
    """Read a revocation list; one whose time is over lets nobody in (RFC 5280 6.3.3)."""
    from cryptography import x509

    ends_at = x509.load_pem_x509_crl(content).next_update_utc
    if ends_at is not None and ends_at < datetime.now(UTC):
        raise _Expired(f"expired on {ends_at:%Y-%m-%d}: with it nobody is let in")
