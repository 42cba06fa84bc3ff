"""What the values of single keys may be."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

_AE_TITLE = re.compile(r"[\x20-\x5b\x5d-\x7e]{1,16}")
_NAME = re.compile(r"[A-Za-z0-9_-]{1,32}")
_FINGERPRINT = re.compile(r"[0-9a-f]{64}")
_URI = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*://|urn:)\S+")
_HOST_NAME = re.compile(r"(?=.{1,253}$)[A-Za-z0-9_]([A-Za-z0-9_.-]*[A-Za-z0-9_])?")


def _ae_title(value: str) -> str:
    """Check an application entity title (PS3.5 Table 6.2-1, VR AE)."""
    if not _AE_TITLE.fullmatch(value) or not value.strip():
        raise ValueError("must be 1 to 16 ASCII characters, without backslash, not only spaces (PS3.5 AE)")
    return value.strip()


def is_in_network(remote_address: str, network: str) -> bool:
    """Say whether an address is this one, or in this network."""
    return parse_ip(remote_address) in ipaddress.ip_network(network, strict=False)


def is_in_any(remote_address: str, networks: Iterable[str]) -> bool:
    """Say whether an address is one of these, or in one of these networks; what is no address is in none."""
    try:
        return any(is_in_network(remote_address, one) for one in networks)
    except ValueError:
        return False


def is_host(value: str) -> bool:
    """Say whether this is a host name or an IP address."""
    return bool(_HOST_NAME.fullmatch(value)) or (_is_network(value) and "/" not in value)


def _host(value: str) -> str:
    if not is_host(value):
        raise ValueError("must be a host name or an IP address")
    return value


def _name(value: str) -> str:
    if not _NAME.fullmatch(value):
        raise ValueError("must be 1 to 32 letters, digits, - or _")
    return value


def _address(value: str) -> str:
    if not _is_network(value):
        raise ValueError("must be an IP address such as 10.1.2.3, or a network such as 10.1.2.0/24")
    return value


def _certificate(value: str) -> str:
    """Read a fingerprint as openssl prints it, with its colons, or the name that a certificate was issued to."""
    fingerprint = value.lower().removeprefix("sha256:").replace(":", "")
    if _FINGERPRINT.fullmatch(fingerprint):
        return fingerprint
    if _URI.fullmatch(value):
        return value
    if not _HOST_NAME.fullmatch(value) or value.replace(".", "").isdigit():
        raise ValueError(
            "must be a SHA-256 fingerprint (64 hexadecimal digits), a DNS name or a URI of the certificate"
        )
    return value.lower()


def _folder(value: Path) -> Path:
    if not value.parts or "\0" in str(value):
        raise ValueError("must be the path of a folder")
    return value


def _is_network(value: str) -> bool:
    try:
        ipaddress.ip_network(value, strict=False)
    except ValueError:
        return False
    return True


AETitle = Annotated[str, AfterValidator(_ae_title)]
Host = Annotated[str, AfterValidator(_host)]
Address = Annotated[str, AfterValidator(_address)]
Certificate = Annotated[str, AfterValidator(_certificate)]
Folder = Annotated[Path, Field(strict=False), AfterValidator(_folder)]
Port = Annotated[int, Field(ge=1, le=65535)]
PositiveSeconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Days = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Name = Annotated[str, AfterValidator(_name)]


class Section(BaseModel):
    """A table of the configuration."""

    # strict: a port of "11112" or an allow_any of "yes" is a slip, and slips are not guessed at
    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, strict=True)


def parse_ip(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """Read an address as DICOM peers show it, without its zone, an IPv4 one in IPv6 as IPv4."""
    address = ipaddress.ip_address(text.split("%")[0])
    return getattr(address, "ipv4_mapped", None) or address
