"""What TLS is done with, and who a certificate says that its owner is."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """Our certificate and whom we trust; all PEM."""

    certificate: Path
    """Ours, and after it those between it and its authority."""
    key: Path
    authorities: Path
    revoked: Path | None = None
    """Certificate revocation lists; None where none is looked at."""

    @property
    def paths(self) -> tuple[Path, ...]:
        mine = (self.certificate, self.key, self.authorities)
        return mine if self.revoked is None else (*mine, self.revoked)


@dataclass(frozen=True, slots=True)
class PeerCertificate:
    """A certificate that a peer has shown, and that was verified."""

    sha256: str
    """Of the whole certificate (DER), in hexadecimal digits: its fingerprint."""
    names: frozenset[str] = frozenset()
    """DNS names in lower case, and URIs, of its SubjectAlternativeName (RFC 5280 4.2.1.6)."""

    def belongs_to(self, who: str) -> bool:
        """Say whether it is the one with this fingerprint, or was issued to this name."""
        return who == self.sha256 or who in self.names
