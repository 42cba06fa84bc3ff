"""Certificates as hospitals have them, and as they should not."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from ich_node.records import TlsFiles

BOTH = (ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH)
SERVER_ALONE, CLIENT_ALONE = BOTH[:1], BOTH[1:]
PEM = serialization.Encoding.PEM


@dataclass(frozen=True)
class Issued:
    """A certificate in files."""

    certificate: Path
    key: Path
    shown: x509.Certificate
    secret: Any

    @property
    def fingerprint(self) -> str:
        return self.shown.fingerprint(hashes.SHA256()).hex()

    @property
    def pair(self) -> tuple[str, str]:
        return str(self.certificate), str(self.key)


class Authority:
    """A hospital's certificate authority, in a folder."""

    def __init__(self, folder: Path, name: str = "authority") -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.name = folder, name
        self.own = self._make(name, days=3650, begins=-2, authority=True, signed_by=None)
        self.file = self.own.certificate

    def issue(
        self,
        name: str,
        *,
        days: float = 90,
        begins: float = -1,
        purposes: tuple[Any, ...] | None = BOTH,
        kind: str = "ec",
        dns: str | None = None,
        uri: str | None = None,
    ) -> Issued:
        """Issue one for 127.0.0.1 and a DNS name; ``days`` until it expires, ``begins`` days from now."""
        return self._make(
            name, days=days, begins=begins, purposes=purposes, kind=kind, dns=dns, uri=uri, signed_by=self.own
        )

    def self_signed(self, name: str) -> Issued:
        """Make one that no authority has signed."""
        return self._make(name, days=90, begins=-1, purposes=BOTH, signed_by=None)

    def revoke(self, *revoked: Issued, days: float = 30) -> Path:
        """Write a revocation list."""
        now = datetime.now(UTC)
        builder = x509.CertificateRevocationListBuilder().issuer_name(self.own.shown.subject)
        builder = builder.last_update(now - timedelta(days=60)).next_update(now + timedelta(days=days))
        for one in revoked:
            entry = x509.RevokedCertificateBuilder().serial_number(one.shown.serial_number).revocation_date(now)
            builder = builder.add_revoked_certificate(entry.build())
        path = self.folder / f"{self.name}.crl"
        path.write_bytes(builder.sign(self.own.secret, hashes.SHA256()).public_bytes(PEM))
        return path

    def files(self, issued: Issued, revoked: Path | None = None) -> TlsFiles:
        return TlsFiles(issued.certificate, issued.key, self.file, revoked)

    def _make(
        self,
        name: str,
        *,
        days: float,
        begins: float,
        signed_by: Issued | None,
        authority: bool = False,
        purposes: tuple[Any, ...] | None = None,
        kind: str = "ec",
        dns: str | None = None,
        uri: str | None = None,
    ) -> Issued:
        key: Any = ec.generate_private_key(ec.SECP256R1()) if kind == "ec" else rsa.generate_private_key(65537, 2048)
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        now = datetime.now(UTC)
        issuer, signing = (subject, key) if signed_by is None else (signed_by.shown.subject, signed_by.secret)
        builder = x509.CertificateBuilder().subject_name(subject).issuer_name(issuer).public_key(key.public_key())
        builder = builder.serial_number(x509.random_serial_number())
        builder = builder.not_valid_before(now + timedelta(days=begins)).not_valid_after(now + timedelta(days=days))
        builder = builder.add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
        if not authority:
            names: list[x509.GeneralName] = [x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
            names += [x509.DNSName(dns or f"{name}.hospital.example")]
            names += [x509.UniformResourceIdentifier(uri)] if uri else []
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        if purposes is not None:
            builder = builder.add_extension(x509.ExtendedKeyUsage(purposes), critical=False)
        shown = builder.sign(signing, hashes.SHA256())
        files = self.folder / f"{name}.pem", self.folder / f"{name}.key"
        files[0].write_bytes(shown.public_bytes(PEM))
        files[1].write_bytes(key.private_bytes(PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))
        files[1].chmod(0o600)
        return Issued(*files, shown, key)
